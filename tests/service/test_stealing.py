"""Expiry steals, it does not kill: only a successful claim ends the old attempt."""

from __future__ import annotations

from functools import partial

import pytest

from service.dispatch import sweep
from service.launcher.base import Lost
from studies.errors import Cancelled, Finished, Paused, StaleClaim, Stopped, Superseded
from tests.service.world import LEASE, TIMES, Held, World

OVER = LEASE * 1.01


def lose(world: World, name: str, reason: str = "it ended with -9") -> None:
    world.db.write(partial(sweep.worker_lost, ctx=world.ctx, lost=Lost(name, reason)))


def test_an_expired_trial_goes_to_the_next_claim(world: World) -> None:
    world.open()
    first = world.worker("a").claim()
    first.report((10, 1.0))
    world.advance(OVER)
    second = world.worker("b").claim()
    assert (second.grant.number, second.grant.attempt) == (0, 2)
    ended, live = world.rows("attempts")
    assert (ended.outcome, ended.reason) == ("lost", "the lease was over")
    assert live.outcome is None


def test_a_lease_that_is_over_by_itself_changes_nothing(world: World) -> None:
    world.open()
    world.worker().claim()
    before = world.trial()
    world.advance(OVER * 5)
    world.sweep()
    assert world.trial() == before
    assert world.rows("attempts")[0].outcome is None


@pytest.mark.parametrize("write", ["heartbeat", "report", "checkpoint"])
def test_a_late_write_revives_what_was_not_stolen(world: World, write) -> None:
    world.open(budget={"trials": 1})
    worker = world.worker("a")
    held = worker.claim()
    held.report((10, 1.0))
    world.advance(OVER * 3)
    late = {
        "heartbeat": lambda: held.heartbeat(15),
        "report": lambda: held.report((20, 1.0)),
        "checkpoint": lambda: held.checkpoint(10),
    }
    late[write]()
    assert world.worker("b").claim() is None
    assert held.train() == "COMPLETE"
    assert world.trial().attempt == 1


def writes_of(held: Held) -> list:
    return [
        lambda: held.heartbeat(11),
        lambda: held.report((20, 0.1)),
        lambda: held.checkpoint(20, last=0),
        lambda: held.resume(None),
        lambda: held.finish("ok", 10),
        lambda: held.finish("preempted", 10),
        lambda: held.log("hello"),
    ]


def test_a_worker_that_lost_its_trial_changes_nothing(world: World) -> None:
    world.open()
    old = world.worker("a").claim()
    old.report((10, 1.0))
    old.checkpoint(10)
    world.advance(OVER)
    new = world.worker("b").claim()
    before = [world.rows(t) for t in ("trials", "attempts", "reports", "checkpoints", "events")]
    for write in writes_of(old):
        with pytest.raises(Superseded):
            write()
    after = [world.rows(t) for t in ("trials", "attempts", "reports", "checkpoints", "events")]
    assert after == before
    assert new.train() == "COMPLETE"


def test_a_lease_token_of_another_claim_is_no_key(small_world: World) -> None:
    small_world.open()
    held = small_world.worker().claim()
    thief = Held(small_world, held.grant, "0" * 32)
    for write in writes_of(thief):
        with pytest.raises(Superseded):
            write()
    assert small_world.rows("reports") == []


def test_a_claim_of_the_same_token_does_not_open_an_older_attempt(small_world: World) -> None:
    small_world.open()
    worker = small_world.worker()
    old = worker.claim_as(1, "a" * 32)
    old.finish("preempted")
    new = worker.claim_as(2, "a" * 32)
    assert (new.grant.number, new.grant.attempt) == (old.grant.number, 2)
    for write in writes_of(old)[:4]:
        with pytest.raises(Superseded):
            write()
    assert small_world.rows("reports") == []
    assert new.train() == "COMPLETE"


def test_a_trial_at_rest_takes_no_write_whoever_knows_its_token(small_world: World) -> None:
    """Whatever a defect might leave in its row: only a RUNNING trial is written to."""
    small_world.open()
    held = small_world.worker().claim()
    small_world.change("trials", {"id": held.grant.trial_id}, state="PAUSED")
    for write in writes_of(held)[:4]:
        with pytest.raises(Paused):
            write()
    assert small_world.rows("reports") == []


@pytest.mark.parametrize(
    ("outcome", "asked", "refusal"),
    [
        ("diverged", None, Finished),
        ("pruned", "stop", Stopped),
        ("error", "cancel", Cancelled),
        ("paused", "pause", Paused),
        ("preempted", None, Superseded),
    ],
)
def test_a_refusal_says_what_became_of_the_trial(small_world, outcome, asked, refusal) -> None:
    small_world.open()
    held = small_world.worker().claim()
    if asked:
        by = "study" if asked == "pause" else None
        small_world.change("trials", {"number": 0}, desired=asked, desired_t=0.0, paused_by=by)
    held.finish(outcome, 0)
    with pytest.raises(refusal) as refused:
        held.heartbeat(1)
    assert type(refused.value) is refusal


def test_whoever_stops_the_trial_may_finish_within_what_a_write_gives(small_world: World) -> None:
    """The lease is renewed for a lease and a tick after the change of mind, then no more."""
    small_world.open()
    held = small_world.worker().claim()
    small_world.pause()
    small_world.advance(LEASE * 0.9)
    held.heartbeat(1)
    assert small_world.trial().lease_until_t == pytest.approx(LEASE * 1.9)
    small_world.advance(LEASE * 0.9)
    held.heartbeat(2)
    assert small_world.trial().lease_until_t == pytest.approx(LEASE * 1.9)
    small_world.advance(LEASE)
    small_world.sweep()
    assert small_world.trial().state == "PAUSED"


# ------------------------------------------------------------------ how often


def steal(world: World, worker, times: int) -> list[int]:
    attempts = []
    for _ in range(times):
        attempts.append(worker.claim().grant.attempt)
        world.advance(OVER)
    return attempts


def test_four_losses_without_a_newer_checkpoint_fail_the_trial(world: World) -> None:
    world.open(budget={"trials": 1})
    worker = world.worker()
    assert steal(world, worker, 4) == [1, 2, 3, 4]
    assert worker.claim() is None
    world.sweep()
    trial = world.trial()
    assert (trial.state, trial.reason) == ("FAILED", "lost: the lease was over")
    assert [row.outcome for row in world.rows("attempts")] == ["lost"] * 4
    assert world.study().state == "ENDED"
    assert world.differences() == []


def test_a_newer_checkpoint_starts_the_count_again(small_world: World) -> None:
    small_world.open(budget={"trials": 1})
    worker = small_world.worker()
    steal(small_world, worker, 3)
    held = worker.claim()
    held.report((10, 1.0))
    held.checkpoint(10)
    small_world.advance(OVER)
    small_world.sweep()
    assert steal(small_world, worker, 3) == [5, 6, 7]
    small_world.sweep()
    assert (small_world.trial().state, small_world.trial().attempt) == ("FAILED", 7)


def test_the_same_checkpoint_again_starts_no_count(small_world: World) -> None:
    """A trial that dies each time it has come as far as its checkpoint fails."""
    small_world.open(budget={"trials": 1})
    worker = small_world.worker()
    held = worker.claim()
    held.report((10, 1.0))
    for _ in range(4):
        held.checkpoint(10)
        assert small_world.trial().state == "RUNNING"
        held.finish("error", 10)
        held = worker.claim()
    assert (small_world.trial().state, held) == ("FAILED", None)


def test_errors_and_losses_count_together(small_world: World) -> None:
    small_world.open(budget={"trials": 1})
    worker = small_world.worker()
    worker.claim().finish("error", 0, "one")
    steal(small_world, worker, 1)
    worker.claim().finish("error", 0, "three")
    assert worker.claim().finish("error", 0, "four") == "FAILED"
    assert small_world.trial().reason == "error: four"


def test_preemptions_are_free(small_world: World) -> None:
    small_world.open(budget={"trials": 1})
    worker = small_world.worker()
    for _ in range(12):
        assert worker.claim().finish("preempted", 0) == "WAITING"
    assert worker.run().grant.attempt == 13


def test_a_lost_trial_that_was_to_stop_is_pruned(world: World) -> None:
    world.open()
    held = world.worker().claim()
    held.report((10, 1.5))
    world.stop()
    world.sweep()
    assert world.trial().state == "RUNNING"
    world.advance(OVER)
    world.sweep()
    assert (world.trial().state, world.trial().value) == ("PRUNED", 1.5)
    assert world.study().state == "ENDED"


def test_a_trial_that_is_to_be_cancelled_is_not_stolen(world: World) -> None:
    world.open()
    world.worker("a").claim()
    world.cancel(0)
    world.advance(OVER)
    assert world.worker("b").claim().grant.number == 1
    world.sweep()
    assert world.trial().state == "CANCELLED"


# ------------------------------------------------------------------ dead and hung workers


def test_a_worker_known_to_be_dead_releases_its_trial_at_once(world: World) -> None:
    world.open()
    held = world.worker("cpu0-1").claim()
    lose(world, "cpu0-1")
    assert world.trial().state == "WAITING"
    assert world.rows("attempts")[0].reason == "the worker is gone: it ended with -9"
    with pytest.raises(Superseded):
        held.report((10, 1.0))
    assert [view.state for view in world.reading.workers()] == ["gone"]
    assert world.worker("cpu0-2").claim().grant.attempt == 2


def test_a_dead_worker_that_was_never_heard_of_is_no_matter(small_world: World) -> None:
    small_world.open()
    small_world.worker("other").claim()
    lose(small_world, "cpu0-9")
    assert small_world.trial().state == "RUNNING"


def test_heartbeats_without_a_step_end_as_hung(world: World) -> None:
    world.open()
    held = world.worker().claim()
    held.heartbeat(7)
    for _ in range(16):
        world.advance(TIMES.lease * 0.95)
        held.heartbeat(7)
        world.sweep()
    trial = world.trial()
    assert (trial.state, trial.failures) == ("WAITING", 1)
    assert world.rows("attempts")[0].outcome == "hung"


def test_heartbeats_with_steps_go_on_forever(small_world: World) -> None:
    small_world.open()
    held = small_world.worker().claim()
    for step in range(40):
        small_world.advance(LEASE * 0.95)
        held.heartbeat(step)
        small_world.sweep()
    assert small_world.trial().attempt == 1


def test_a_worker_that_is_cut_off_is_not_hung(world: World) -> None:
    """It trains on and spools for 30 leases; nobody else wants the trial."""
    world.open(budget={"trials": 1})
    held = world.worker().claim()
    world.advance(LEASE * 25)
    world.sweep()
    assert held.report((10, 1.0)).accepted_through == 10
    world.sweep()
    assert held.train() == "COMPLETE"


def test_an_orphan_of_a_worker_that_was_lost_is_refused_and_claims_nothing_more(world) -> None:
    world.open()
    orphan = world.worker("a")
    held = orphan.claim()
    lose(world, "a")
    with pytest.raises(Superseded):
        held.report((10, 1.0))
    for _ in range(3):
        with pytest.raises(StaleClaim):
            orphan.claim()
    assert world.worker("b").claim().grant.attempt == 2
