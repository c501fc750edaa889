"""Checkpoints: the pointer is the commit, and a trial resumes from the newest good one."""

from __future__ import annotations

import time

import pytest

from studies.errors import BlobMissing, Conflict, Superseded, Unreported
from tests.service.world import LEASE, Held, World


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
    world.upload("a" * 64)
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


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_only_the_best_three_keep_a_checkpoint(world: World, direction) -> None:
    world.open(objective={"direction": direction})
    worker = world.worker()
    for value in (5.0, 1.0, 3.0, 4.0, 2.0):
        held = worker.claim()
        held.report((10, value), (30, value))
        held.checkpoint(10)
        held.checkpoint(30)
        held.finish("ok", 30)
    numbers = {row.id: row.number for row in world.rows("trials")}
    kept = {numbers[row.trial_id]: row.step for row in world.rows("checkpoints")}
    best = {1, 2, 4} if direction == "minimize" else {0, 2, 3}
    assert kept == dict.fromkeys(best, 30)


@pytest.mark.parametrize("outcome", ["diverged", "pruned"])
def test_a_trial_that_ends_otherwise_keeps_none(world: World, outcome) -> None:
    world.open()
    held = world.worker().claim()
    held.report((10, 1.0))
    held.checkpoint(10)
    if outcome == "pruned":
        world.stop()
    held.finish(outcome, 10)
    assert world.rows("checkpoints") == []


def test_the_best_of_another_study_are_not_touched(small_world: World) -> None:
    small_world.open(budget={"trials": 3})
    small_world.open("other", budget={"trials": 4})
    worker = small_world.worker()
    for _ in range(7):
        held = worker.claim()
        held.report((30, 1.0))
        held.checkpoint(30)
        held.finish("ok", 30)
    kept = {row.trial_id for row in small_world.rows("checkpoints")}
    ids = {row.id: row.study_id for row in small_world.rows("trials")}
    assert sorted(ids[trial] for trial in kept) == [1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_with_early_stopping_the_best_step_keeps_its_checkpoint(world: World, direction) -> None:
    """The attempt that ends is not the one that has the file."""
    sign = 1 if direction == "minimize" else -1
    world.open(train={"steps": 50, "evaluate_every": 5, "patience": 9},
               objective={"direction": direction})  # fmt: skip
    held = world.worker().claim()
    for step in (5, 10, 15):
        held.report((step, sign * (1.0 if step == 5 else 2.0)))
        held.checkpoint(step)
    held = resumed(world)
    for step in (20, 25):
        held.report((step, sign * 2.0))
        held.checkpoint(step)
    assert [row.step for row in world.rows("checkpoints")] == [5, 20, 25]
    held.finish("ok", 5)
    assert [row.step for row in world.rows("checkpoints")] == [5]


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


def test_a_grant_names_the_good_checkpoint_before_the_newest_too(small_world: World) -> None:
    small_world.open()
    held = small_world.worker().claim()
    held.report((10, 3.0), (20, 2.0))
    held.checkpoint(10)
    assert (resumed(small_world).grant.older) is None
    again = resumed(small_world)
    again.report((20, 2.0))
    again.checkpoint(20)
    third = resumed(small_world)
    assert [third.grant.resume.step, third.grant.older.step] == [20, 10]
    third.resume(10)
    last = resumed(small_world).grant
    assert (last.resume.step, last.older) == (10, None)


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
