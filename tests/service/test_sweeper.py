"""The sweeper: one loop for the clock, the overdue, the launcher's workers and unused blobs."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Collection
from pathlib import Path

import pytest

from service import sweeper as module
from service.blobs import BlobFolder
from service.dispatch import sweep
from service.launcher.base import Lost
from service.store import blobs, workers
from service.sweeper import Sweeper
from studies.errors import StaleClaim
from tests.harness.process import PATIENCE, wait_for
from tests.service.world import LEASE, World


class Launched:
    """A launcher whose workers die as it is told."""

    def __init__(self, *lost: Lost) -> None:
        self.lost, self.kept, self.grace, self.wanted = list(lost), 0, -1.0, -1
        self.busy: Collection[str] = ()

    def keep(self, wanted: int, busy: Collection[str] = ()) -> list[Lost]:
        self.kept, self.wanted, self.busy = self.kept + 1, wanted, busy
        told, self.lost = self.lost, []
        return told

    def stop(self, grace: float) -> list[Lost]:
        self.grace = grace
        return self.keep(0)


@pytest.fixture
def folder(tmp_path: Path) -> BlobFolder:
    return BlobFolder(tmp_path / "blobs")


def test_a_sweep_moves_the_clock(world: World, folder: BlobFolder) -> None:
    before = world.db.read(workers.read_clock)
    Sweeper(world.ctx, Launched(), folder).once()
    after = world.db.read(workers.read_clock)
    assert after.wall > before.wall
    assert after.t > before.t


def test_a_sweep_ends_what_nobody_can_take(small_world: World, folder: BlobFolder) -> None:
    small_world.open()
    small_world.worker().claim()
    small_world.stop()
    small_world.advance(LEASE * 2)
    Sweeper(small_world.ctx, Launched(), folder).once()
    assert small_world.study().state == "ENDED"


def test_what_cannot_be_settled_holds_nothing_else_up(world, monkeypatch, caplog) -> None:
    """The oldest first: a defect in one trial was to keep all others from their ends."""
    world.open()
    for name in "ab":
        world.worker(name).claim()
    world.open("other")
    world.worker("c").claim()
    for name in ("study", "other"):
        world.stop(name)
    real = sweep.settle

    def settle(tx, trial, *said):
        if (trial.study_id, trial.number) == (world.study().id, 0):
            raise RuntimeError("a defect")
        return real(tx, trial, *said)

    monkeypatch.setattr(sweep, "settle", settle)
    world.advance(LEASE * 2)
    world.sweep()
    assert world.states() == ["RUNNING", "PRUNED"]
    assert world.study("other").state == "ENDED"
    assert "cannot be settled" in caplog.text
    monkeypatch.undo()
    world.sweep()
    assert world.study().state == "ENDED"
    assert world.differences() == []


def test_the_trial_of_a_dead_worker_waits_at_once(small_world: World, folder: BlobFolder) -> None:
    small_world.open()
    small_world.worker("cpu0-a").claim()
    launched = Launched(Lost("cpu0-a", "it ended with -9"))
    Sweeper(small_world.ctx, launched, folder).keep()
    assert (small_world.trial().state, launched.kept) == ("WAITING", 1)


def test_a_dead_worker_is_told_again_until_it_is_recorded(small_world, folder, monkeypatch) -> None:
    small_world.open()
    small_world.worker("cpu0-a").claim()
    sweeper = Sweeper(small_world.ctx, Launched(Lost("cpu0-a", "it ended with -9")), folder)
    with monkeypatch.context() as broken:
        broken.setattr(sweep, "settle", lambda *_: 1 / 0)
        sweeper.keep()
    assert small_world.trial().state == "RUNNING"
    sweeper.keep()
    assert small_world.trial().state == "WAITING"


def test_as_many_workers_are_wanted_as_studies_can_use(small_world, folder) -> None:
    launched = Launched()

    def wanted() -> int:
        Sweeper(small_world.ctx, launched, folder).keep()
        return launched.wanted

    assert wanted() == 0
    small_world.open()
    trials = small_world.study().spec["budget"]["trials"]
    assert wanted() == trials
    worker = small_world.worker()
    worker.claim()
    assert (wanted(), launched.busy) == (trials, {"worker"})
    small_world.stop()
    assert wanted() == 1  # its trial still runs


def test_the_end_lets_workers_go_and_tells_of_the_killed(small_world, folder) -> None:
    small_world.open()
    small_world.worker("cpu0-a").claim()
    launched = Launched(Lost("cpu0-a", "it did not end in time"))
    Sweeper(small_world.ctx, launched, folder).drain(7.0)
    assert (small_world.trial().state, launched.grace) == ("WAITING", 7.0)


def test_unused_blobs_are_collected_now_and_then(small_world, folder, monkeypatch) -> None:
    digest = hashlib.sha256(b"unused").hexdigest()
    folder.path(digest).parent.mkdir()
    folder.path(digest).write_bytes(b"unused")
    small_world.db.write(
        lambda tx: blobs.add(tx, sha256=digest, kind="checkpoint", name="", bytes=6)
    )
    small_world.change("blobs", {"sha256": digest}, created_at=0.0)
    Sweeper(small_world.ctx, Launched(), folder).once()
    assert folder.path(digest).exists()
    monkeypatch.setattr(module, "COLLECT_SECONDS", 0.0)
    Sweeper(small_world.ctx, Launched(), folder).once()
    assert not folder.path(digest).exists()
    assert small_world.rows("blobs") == []


def test_a_launcher_that_takes_long_holds_up_no_lease(small_world, folder, monkeypatch) -> None:
    monkeypatch.setattr(module, "TICK_SECONDS", 0.01)
    launched, asked, answer = Launched(), threading.Event(), threading.Event()

    def keep(wanted: int, busy: Collection[str]) -> list[Lost]:
        asked.set()
        answer.wait()
        return []

    launched.keep = keep
    small_world.open()
    small_world.worker().claim()
    small_world.stop()
    sweeper = Sweeper(small_world.ctx, launched, folder)
    sweeper.start()
    assert asked.wait(10 * PATIENCE)
    small_world.advance(LEASE * 2)
    wait_for(lambda: small_world.study().state == "ENDED", 10, "end of what nobody can take")
    answer.set()
    sweeper.stop()


def test_a_dead_worker_that_was_not_known_yet_gets_nothing(small_world, folder) -> None:
    """Its launcher saw it end while it still started; what is left of it may come later."""
    small_world.open()
    Sweeper(small_world.ctx, Launched(Lost("slurm0-a", "NODE_FAIL", elsewhere=True)), folder).keep()
    with pytest.raises(StaleClaim):
        small_world.worker("slurm0-a").claim()
    assert small_world.worker("slurm0-b").claim()


def test_a_sweep_that_fails_is_followed_by_the_next(small_world, folder, monkeypatch) -> None:
    monkeypatch.setattr(module, "TICK_SECONDS", 0.01)
    launched, failed = Launched(), threading.Event()

    def fails_once(wanted: int, busy: Collection[str]) -> list[Lost]:
        if not failed.is_set():
            failed.set()
            raise OSError("no more processes")
        return Launched.keep(launched, wanted, busy)

    launched.keep = fails_once
    sweeper = Sweeper(small_world.ctx, launched, folder)
    sweeper.start()
    wait_for(lambda: launched.kept > 1, 10, "sweep after the one that failed")
    sweeper.stop()
    kept = launched.kept
    assert failed.is_set()
    assert launched.kept == kept
