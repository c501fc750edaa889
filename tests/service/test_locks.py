"""PostgreSQL: who waits for whom. Rows are locked in the order worker, study, trial."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from service.dispatch import claim
from service.store import database, studies, trials, workers
from service.store.database import Database, Tx
from studies import wire
from tests.harness.process import PATIENCE
from tests.service.world import World

pytestmark = pytest.mark.postgres
SECONDS = 10.0 * PATIENCE  # for a write that waits for nobody


@pytest.fixture
def world(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    idle = "SET idle_in_transaction_session_timeout = '10min'"  # who holds a row is not ended
    monkeypatch.setattr(database, "_IDLE", idle)
    made = World(Database(postgres_url))
    yield made
    made.close()


@contextmanager
def holding(world: World, take: Callable[[Tx], Any]) -> Iterator[None]:
    """Another transaction holds what `take` takes."""
    taken, done = threading.Event(), threading.Event()

    def work(tx: Tx) -> None:
        take(tx)
        taken.set()
        assert done.wait(2 * SECONDS)

    held = world.db.submit(work)
    assert taken.wait(SECONDS)
    try:
        yield
    finally:
        done.set()
        held.result(SECONDS)


def soon(call: Callable[[], Any]) -> Any:
    """What a call returns that waits for no other transaction."""
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(call()))
    thread.start()
    thread.join(SECONDS)
    assert not thread.is_alive(), "it waits for a lock"
    return got[0]


def test_a_report_waits_for_nobody_who_holds_its_study(world: World) -> None:
    """Else a pause, which holds the study and waits for the trial, and a report would deadlock."""
    study = world.open()
    held = world.worker().claim()
    with holding(world, lambda tx: studies.lock(tx, study.id)):
        assert soon(lambda: held.report((10, 1.0))).decision == "continue"
        assert soon(lambda: held.report((20, 1.0), (30, 1.0))).accepted_through == 30


def test_a_heartbeat_does_not_wait_for_its_worker(world: World) -> None:
    """Else it, which holds the trial, and a claim, which holds the worker, would deadlock."""
    world.open()
    worker = world.worker()
    held = worker.claim()
    with holding(world, lambda tx: workers.hold(tx, worker.id)):
        assert soon(lambda: held.heartbeat(5)) == "continue"
    before = world.rows("workers")[0].seen_at
    held.heartbeat(6)
    assert world.rows("workers")[0].seen_at > before


def test_a_claim_passes_over_a_trial_that_somebody_holds(world: World) -> None:
    world.open()
    taken = world.enqueue()
    with holding(world, lambda tx: trials.get(tx.conn, taken.id, hold=True)):
        assert soon(world.worker().claim).grant.number == 1


def test_a_registration_that_comes_twice_at_once_is_one_worker(world: World) -> None:
    body = wire.RegisterBody(
        name="twin", host="box", pid=1, device="cpu", protocol=wire.PROTOCOL, code_hash="c"
    )
    meet = threading.Barrier(2)

    def register(tx: Tx) -> int:
        assert workers.by_name(tx.conn, "twin") is None
        meet.wait(SECONDS)
        return claim.workers.insert(tx, **body.model_dump()).id

    first, second = (world.db.submit(register) for _ in range(2))
    assert first.result(SECONDS) == second.result(SECONDS)
    assert len(world.rows("workers")) == 1
