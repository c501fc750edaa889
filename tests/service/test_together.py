"""PostgreSQL: reports and heartbeats that wait are done together, and none notices the others."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from service.dispatch import plain, report
from service.store import database, studies, trials
from service.store.commits import Many
from service.store.database import Database, Tx
from studies import wire
from studies.errors import Superseded, Unavailable
from tests.service.test_locks import SECONDS, holding, soon
from tests.service.test_lost_connections import PID, kill
from tests.service.world import LEASE, Held, World, items

pytestmark = pytest.mark.postgres
WORKERS = 5


@pytest.fixture
def world(postgres_url: str) -> Iterator[World]:
    made = World(Database(postgres_url))
    yield made
    made.close()


@pytest.fixture
def held(world: World) -> list[Held]:
    """Attempts at work, each of a worker of its own."""
    world.open()
    return [world.worker(f"w{number}").claim() for number in range(WORKERS)]


@pytest.fixture
def commits(world: World, held: list[Held]) -> list[str]:
    """The transactions that have been committed since."""
    seen: list[str] = []
    sa.event.listen(world.db.writer, "commit", lambda _: seen.append("commit"))
    return seen


@contextmanager
def held_up(world: World) -> Iterator[None]:
    """The writer of what is done together is busy: what is submitted inside is one group."""
    busy, go_on = threading.Event(), threading.Event()

    def occupy(_: Tx, said: list[Any]) -> list[Any]:
        busy.set()
        assert go_on.wait(3 * SECONDS)
        return said

    first = world.db.submit(lambda _: None, Many(occupy, "occupied"))
    assert busy.wait(SECONDS)
    yield
    go_on.set()
    assert first.result(SECONDS) == "occupied"


def begin(held: Held, *points: tuple[int, float]) -> Future[wire.ReportAnswer]:
    body = wire.ReportBody(items=items(*points))
    return held.begin(report.record_report, body, plain.reporting)


def beat(held: Held, step: int) -> Future[Any]:
    return held.begin(report.heartbeat, wire.HeartbeatBody(step=step), plain.beating)


def visible(world: World) -> list[tuple[int, int, float | None]]:
    return sorted((row.trial_id, row.step, row.value) for row in world.rows("reports"))


def test_what_waits_is_one_transaction(world: World, held: list[Held], commits) -> None:
    world.advance(0.5)
    commits.clear()
    with held_up(world):
        reports = [begin(one, (10, number / 4)) for number, one in enumerate(held)]
        beats = [beat(one, 12) for one in held]
    assert [future.result(SECONDS).accepted_through for future in reports] == [10] * WORKERS
    assert {future.result(SECONDS) for future in beats} == {"continue"}
    assert commits == ["commit"] * 2  # whoever held the writer up, and all the others
    ids = sorted(one.grant.trial_id for one in held)
    assert visible(world) == [(trial, 10, number / 4) for number, trial in enumerate(ids)]
    rows = world.rows("trials")
    assert {(row.step, row.progress_step) for row in rows} == {(10, 12)}
    assert {row.lease_until_t for row in rows} == {0.5 + LEASE}


def test_each_gets_the_answer_that_it_would_get_alone(world: World, held: list[Held]) -> None:
    """A report again, a stranger's, one of a trial to stop, one without a number."""
    again, stranger, stopped, infinite, fine = held
    again.report((10, 1.0))
    world.change("trials", {"id": stopped.grant.trial_id}, desired="stop", desired_t=0.0)
    with held_up(world):
        got = [begin(again, (10, 1.0)), begin(again, (10, 1.0)), begin(again, (20, 0.5))]
        stranger.token = "0" * 32
        refused = [begin(stranger, (10, 1.0)), beat(stranger, 10)]
        others = [
            begin(stopped, (10, 1.0)),
            begin(infinite, (10, float("inf"))),
            begin(fine, (10, 2.0)),
        ]
    assert [future.result(SECONDS).duplicate for future in got] == [True, True, False]
    for future in refused:
        with pytest.raises(Superseded):
            future.result(SECONDS)
    assert [f.result(SECONDS).decision for f in others] == ["stop", "continue", "continue"]
    rows = {(row.trial_id, row.step): row for row in world.rows("reports")}
    assert sorted(rows) == sorted(
        [(again.grant.trial_id, 10), (again.grant.trial_id, 20)]
        + [(one.grant.trial_id, 10) for one in (stopped, infinite, fine)]
    )
    assert rows[infinite.grant.trial_id, 10].special == "Infinity"


def test_a_row_that_no_column_takes_harms_nobody_else(world: World, held: list[Held]) -> None:
    with held_up(world):
        wrong = begin(held[0], (2**40, 1.0))
        others = [begin(one, (10, 1.0)) for one in held[1:]]
    assert {future.result(SECONDS).accepted_through for future in others} == {10}
    assert wrong.exception(SECONDS) is not None
    assert len(visible(world)) == WORKERS - 1


def test_who_waits_for_a_trial_that_is_held_waits_alone(world: World, held: list[Held]) -> None:
    key = held[0].grant.trial_id
    with holding(world, lambda tx: trials.get(tx.conn, key, hold=True)):
        with held_up(world):
            waiting = begin(held[0], (10, 1.0))
            others = [begin(one, (10, 1.0)) for one in held[1:]]
        assert {future.result(SECONDS).accepted_through for future in others} == {10}
        assert soon(lambda: held[1].report((20, 1.0))).accepted_through == 20
        assert not waiting.done()
    assert waiting.result(SECONDS).accepted_through == 10


def test_a_backend_killed_in_the_group_has_it_run_again(world: World, held: list[Held]) -> None:
    killed: list[int] = []

    def do(tx: Tx, said: list[Any]) -> list[Any]:
        killed.append(tx.conn.execute(PID).scalar_one())
        kill(world, killed[0])
        return plain.take_all(tx, said)

    many = plain.reporting(world.ctx, held[0].key, wire.ReportBody(items=items((10, 1.0))))
    assert many is not None
    future = world.db.submit(lambda tx: plain.take(tx, many.said), Many(do, many.said))
    assert future.result(SECONDS).accepted_through == 10
    assert len(killed) == len(visible(world)) == 1


def test_a_backend_killed_in_the_commit_leaves_it_to_the_callers(world, held) -> None:
    def do(tx: Tx, said: list[Any]) -> list[Any]:
        done = plain.take_all(tx, said)
        kill(world, tx.conn.execute(PID).scalar_one())
        return list(done)

    many = plain.reporting(world.ctx, held[0].key, wire.ReportBody(items=items((10, 1.0))))
    assert many is not None
    future = world.db.submit(lambda tx: plain.take(tx, many.said), Many(do, many.said))
    with pytest.raises(Unavailable):
        future.result(SECONDS)
    assert visible(world) == []
    assert held[0].report((10, 1.0)).duplicate is False


def test_a_server_that_stands_still_in_a_transaction_holds_nobody_up(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen, or cut off: PostgreSQL ends what it holds, and it does it again when it is back."""
    other = World(Database(postgres_url))
    worker = other.worker()  # over connections that are patient: it may be slow
    monkeypatch.setattr(database, "_IDLE", "SET idle_in_transaction_session_timeout = '300ms'")
    frozen = World(Database(postgres_url))
    study, thawed, tries = frozen.open(), threading.Event(), []

    def work(tx: Tx) -> str:
        studies.lock(tx, study.id)
        tries.append(1)
        assert thawed.wait(3 * SECONDS)
        return studies.lock(tx, study.id).name

    future = frozen.db.submit(work)
    try:
        assert soon(worker.claim).grant.number == 0
        assert not future.done()
        thawed.set()
        assert future.result(SECONDS) == "study"
        assert len(tries) >= 2  # more where this thread stood still once more
    finally:
        thawed.set()
        frozen.close()
        other.close()
