"""Checkpoints: the pointer is the commit, and a trial resumes from the newest good one."""

from __future__ import annotations

import time

import pytest

from service.dispatch import sweep
from service.dispatch.sweep import UNPOINTED_LEASES
from service.store import blobs
from studies.errors import BlobMissing, Conflict, Superseded, Unreported
from tests.service.world import LEASE, Held, World

OLD = UNPOINTED_LEASES * LEASE + 1


def resumed(world: World) -> Held:
    """The trial's next attempt, after the lease of the one before is over."""
    world.advance(LEASE * 1.1)
    return world.worker().claim()


def resume_step(world: World) -> int | None:
    resume = resumed(world).grant.resume
    return resume and resume.step


def test_a_blob_without_a_pointer_is_no_checkpoint(world: World) -> None:
    world.open()
    held = world.worker().claim()
    held.report((10, 1.0))
    upload(world, "a" * 64)
    assert resume_step(world) is None


def test_the_newest_pointer_is_resumed(world: World) -> None:
    world.open()
    held = world.worker().claim()
    held.report((10, 2.0), (20, 1.0))
    held.checkpoint(10)
    held.checkpoint(20)
    again = resumed(world)
    assert again.grant.resume.step == 20
    assert again.grant.resume.sha256 == world.rows("checkpoints", step=20)[0].sha256
    assert again.grant.resume.bytes == 1
    assert world.rows("attempts", attempt=2)[0].start_step == 20


def test_a_pointer_needs_its_report(world: World) -> None:
    world.open()
    held = world.worker().claim()
    with pytest.raises(Unreported, match="step 10"):
        held.checkpoint(10)
    assert world.rows("checkpoints") == []
    held.report((10, 1.0))
    held.checkpoint(15, last=10)
    assert resume_step(world) == 15


def test_a_pointer_to_a_hidden_report_is_refused(small_world: World) -> None:
    small_world.open()
    held = small_world.worker().claim()
    held.report((10, 1.0))
    again = resumed(small_world)
    with pytest.raises(Unreported):
        again.checkpoint(10)


def test_a_checkpoint_before_the_first_report_is_good(small_world: World) -> None:
    small_world.open()
    small_world.worker().claim().checkpoint(5, last=0)
    assert resume_step(small_world) == 5


def test_a_pointer_needs_its_blob(world: World) -> None:
    world.open()
    held = world.worker().claim()
    held.report((10, 1.0))
    with pytest.raises(BlobMissing, match="upload"):
        held.point(10, "b" * 64, 10)
    assert world.rows("checkpoints") == []


def test_the_same_pointer_again_changes_nothing(world: World) -> None:
    world.open()
    held = world.worker().claim()
    held.report((10, 1.0))
    held.checkpoint(10)
    before = world.rows("checkpoints")
    held.checkpoint(10)
    assert world.rows("checkpoints") == before


def test_the_two_newest_are_kept(world: World) -> None:
    world.open()
    held = world.worker().claim()
    held.report((10, 1.0))
    for step in (11, 12, 13, 14):
        held.checkpoint(step, last=10)
    assert [row.step for row in world.rows("checkpoints")] == [13, 14]


def test_pointers_that_come_again_late_drop_none_that_is_newer(world: World) -> None:
    world.open()
    held = world.worker().claim()
    held.report((10, 1.0))
    for step in (11, 12, 13, 14, 11, 12):
        held.checkpoint(step, last=10)
    assert resume_step(world) == 14


def test_a_pointer_is_newer_by_its_step_whatever_the_wall_clock_says(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.open()
    held = world.worker().claim()
    held.report((10, 1.0))
    held.checkpoint(11, last=10)
    held.checkpoint(12, last=10)
    day_before = time.time() - 86_400
    monkeypatch.setattr(time, "time", lambda: day_before)
    held.checkpoint(13, last=10)
    held.checkpoint(14, last=10)
    assert resume_step(world) == 14


def test_one_is_kept_when_the_trial_ends(world: World) -> None:
    world.open()
    held = world.worker().claim()
    held.report((10, 1.0), (20, 1.0), (30, 1.0))
    held.checkpoint(20)
    held.checkpoint(30)
    held.finish("ok", 30)
    assert [row.step for row in world.rows("checkpoints")] == [30]


def test_the_step_that_counts_keeps_its_checkpoint(world: World) -> None:
    """Early stopping: its pointer was among the newest, so pointing again changes nothing."""
    world.open()
    held = world.worker().claim()
    held.report((10, 1.0), (20, 2.0))
    held.checkpoint(10)
    held.checkpoint(20)
    held.checkpoint(10)
    held.finish("ok", 10)
    assert [row.step for row in world.rows("checkpoints")] == [10]


def test_a_checkpoint_that_cannot_be_used_is_marked_and_its_reports_hidden(world: World) -> None:
    world.open()
    held = world.worker().claim()
    held.report((10, 3.0), (20, 2.0))
    held.checkpoint(10)
    held.checkpoint(20)
    again = resumed(world)
    assert again.resume(10) == "continue"
    assert [(row.step, row.bad) for row in world.rows("checkpoints")] == [(10, False), (20, True)]
    assert (world.trial().step, world.trial().value) == (10, 3.0)
    assert resume_step(world) == 10


def test_resuming_from_nothing_hides_everything(world: World) -> None:
    world.open()
    held = world.worker().claim()
    held.report((10, 3.0))
    held.checkpoint(10)
    again = resumed(world)
    again.resume(None)
    assert (world.trial().step, world.trial().value) == (0, None)
    assert world.rows("attempts", attempt=2)[0].start_step == 0
    again.report((10, 2.5), (20, 2.0), (30, 1.0))
    again.finish("ok", 30)
    assert world.optuna().trials[0].intermediate_values == {10: 2.5, 20: 2.0, 30: 1.0}
    assert world.differences() == []


def test_resume_comes_before_the_first_report(small_world: World) -> None:
    small_world.open()
    held = small_world.worker().claim()
    held.report((10, 1.0))
    with pytest.raises(Conflict, match="before the attempt's first report"):
        held.resume(None)
    assert small_world.trial().step == 10


def test_a_new_checkpoint_below_a_bad_one_is_resumed(small_world: World) -> None:
    small_world.open()
    held = small_world.worker().claim()
    held.report((10, 3.0), (20, 2.0))
    held.checkpoint(20)
    again = resumed(small_world)
    again.resume(None)
    again.report((10, 2.9))
    again.checkpoint(10)
    assert resume_step(small_world) == 10


def test_the_old_attempt_cannot_point(world: World) -> None:
    world.open()
    old = world.worker().claim()
    old.report((10, 1.0))
    resumed(world)
    with pytest.raises(Superseded):
        old.checkpoint(10)
    assert world.rows("checkpoints") == []


# ------------------------------------------------------------------ collection


def upload(world: World, digest: str, age: float = 0.0, kind: str = "checkpoint") -> str:
    def work(tx):
        tx.now -= age
        blobs.add(tx, sha256=digest, kind=kind, name="", bytes=1)

    world.db.write(work)
    return digest


def collect(world: World, *between) -> list[str]:
    """One collection; `between` happens after the blobs were marked. Returns what was removed."""
    removed: list[str] = []
    marked = world.db.write(lambda tx: sweep.mark_unused_blobs(tx, world.ctx))
    for happens in between:
        happens()
    for digest in marked:
        world.db.write(lambda tx, d=digest: sweep.collect_blob(tx, d, removed.append))
    return removed


def test_an_old_blob_that_nothing_points_at_is_collected(world: World) -> None:
    world.open()
    held = world.worker().claim()
    held.report((10, 1.0))
    for name in "abc":
        upload(world, name * 64, age=OLD)
    held.point(10, "a" * 64, 10)
    upload(world, "d" * 64, kind="data", age=OLD)
    upload(world, "e" * 64)
    assert sorted(collect(world)) == ["b" * 64, "c" * 64]
    assert [row.sha256[0] for row in world.rows("blobs")] == ["a", "d", "e"]
    assert collect(world) == []


def test_a_blob_of_a_dropped_pointer_is_collected(small_world: World) -> None:
    small_world.open()
    held = small_world.worker().claim()
    held.report((10, 1.0))
    for step in (11, 12, 13):
        held.checkpoint(step, last=10)
    for row in small_world.rows("blobs"):
        small_world.change("blobs", {"sha256": row.sha256}, created_at=0.0)
    assert len(collect(small_world)) == 1
    assert resume_step(small_world) == 13


def test_a_dying_blob_is_missing_until_it_is_uploaded_again(world: World) -> None:
    world.open()
    held = world.worker().claim()
    held.report((10, 1.0))
    upload(world, "a" * 64, age=OLD)

    def again() -> None:
        with pytest.raises(BlobMissing):
            held.point(10, "a" * 64, 10)
        upload(world, "a" * 64)
        held.point(10, "a" * 64, 10)

    assert collect(world, again) == []
    assert resume_step(world) == 10


def test_a_collection_that_was_cut_short_is_taken_up_again(world: World) -> None:
    upload(world, "a" * 64, age=OLD)
    world.db.write(lambda tx: sweep.mark_unused_blobs(tx, world.ctx))
    assert collect(world.restarted()) == ["a" * 64]


def test_a_checkpoint_whose_blob_is_gone_is_not_resumed(small_world: World) -> None:
    small_world.open()
    held = small_world.worker().claim()
    held.report((10, 1.0), (20, 1.0))
    held.checkpoint(10)
    held.checkpoint(20)
    lost = small_world.rows("checkpoints", step=20)[0].sha256
    small_world.change("blobs", {"sha256": lost}, state="dying")
    assert resume_step(small_world) == 10
