"""What may happen while a sampler is asked: the claim gets one answer, and nothing goes stale."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import optuna
import pytest

from service.dispatch import suggest
from service.dispatch.sweep import worker_gone
from service.tuning.mirror import Mirror, Suggestion
from studies.errors import Conflict, StaleClaim
from tests.service.world import World

TPE = {"kind": "tpe", "seed": 5, "startup_trials": 2}
Meanwhile = Callable[[Callable[[], Any]], None]


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """Has something happen once, just after the next suggestion was made."""

    def arrange(happens: Callable[[], Any]) -> None:
        asked, pending = Mirror.ask, [happens]

        def ask(mirror: Mirror, *arguments: Any) -> Suggestion | None:
            suggestion = asked(mirror, *arguments)
            if pending:
                pending.pop()()
            return suggestion

        monkeypatch.setattr(Mirror, "ask", ask)

    return arrange


def lived(world: World, name: str) -> None:
    """A study that has learnt from four trials; the twin rests."""
    world.open(name, sampler=TPE)
    for value in (3.0, 1.0, 2.0, 4.0):
        world.worker().run(value)
    if name == "twin":
        world.pause(name)


# ------------------------------------------------------------------ the same claim, and others


def test_a_retry_while_the_sampler_is_asked_gets_the_same_trial(world, meanwhile) -> None:
    """On another server: on this one it waits for its turn to ask."""
    world.open(sampler=TPE)
    worker, joined = world.worker(), []
    meanwhile(lambda: joined.append(worker.claim_as(1, world=world.restarted())))
    first = worker.claim_as(1)
    assert joined[0].grant == first.grant
    assert len(world.rows("attempts")) == len(world.rows("trials")) == 1


def test_a_claim_closed_while_the_sampler_is_asked_gets_nothing(world, meanwhile) -> None:
    """A retry was answered with nothing: the first must not be granted what nobody hears of."""
    world.open(sampler=TPE)
    worker = world.worker()
    meanwhile(lambda: worker.close(1))
    assert worker.claim_as(1) is None
    assert world.rows("trials") == []
    assert worker.claim_as(2).grant.number == 0


def test_a_newer_claim_while_the_sampler_is_asked_ends_the_older(world, meanwhile) -> None:
    world.open(sampler=TPE)
    worker, newer = world.worker(), []
    meanwhile(lambda: newer.append(worker.claim_as(2, world=world.restarted())))
    with pytest.raises(StaleClaim):
        worker.claim_as(1)
    assert newer[0].grant.number == 0
    assert len(world.rows("attempts")) == len(world.rows("trials")) == 1


def test_a_worker_that_leaves_while_the_sampler_is_asked_gets_nothing(world, meanwhile) -> None:
    world.open(sampler=TPE)
    worker = world.worker()
    meanwhile(lambda: world.db.write(lambda tx: worker_gone(tx, worker.id)))
    with pytest.raises(StaleClaim):
        worker.claim_as(1)
    assert world.rows("trials") == []


# ------------------------------------------------------------------ the study meanwhile


@pytest.mark.parametrize("action", ["pause", "stop"])
def test_a_study_at_rest_by_then_makes_no_trial(world, meanwhile, action) -> None:
    world.open(sampler=TPE)
    meanwhile(getattr(world, action))
    assert world.worker().claim() is None
    assert world.rows("trials") == []


def test_a_study_at_rest_by_then_leaves_the_worker_to_the_next(world, meanwhile) -> None:
    for name in ("a", "b"):
        world.open(name, sampler=TPE)
    meanwhile(lambda: world.pause("a"))
    assert world.worker().claim().grant.study == "b"


def test_a_trial_released_by_then_is_granted_first(world, meanwhile) -> None:
    world.open(sampler=TPE)
    released = world.worker("other").claim()
    meanwhile(lambda: released.finish("preempted", 0))
    held = world.worker().claim()
    assert (held.grant.number, held.grant.attempt) == (0, 2)
    assert len(world.rows("trials")) == 1


def test_the_last_slot_taken_by_then_is_not_taken_twice(world, meanwhile) -> None:
    world.open(sampler=TPE, budget={"trials": 1})
    meanwhile(world.restarted().worker("other").claim)
    assert world.worker().claim() is None
    assert len(world.rows("trials")) == 1


def test_a_number_taken_by_then_is_asked_for_again(world, meanwhile) -> None:
    """What was suggested for number 4 is thrown away: 5 is asked for, and sees 4."""
    for name in ("twin", "study"):
        lived(world, name)
    meanwhile(world.restarted().worker("other").claim)
    assert world.worker().claim().grant.number == 5
    ours = [row.params for row in world.rows("trials", study_id=world.study().id)]
    world.stop()
    world.resume("twin")
    for worker in ("first", "second"):
        world.worker(worker).claim()
    assert ours == [row.params for row in world.rows("trials", study_id=world.study("twin").id)]
    assert world.differences() == []


def test_a_foreign_trial_by_then_moves_the_number_on(world, meanwhile) -> None:
    world.open(sampler=TPE)
    foreign = optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL)
    meanwhile(lambda: world.optuna().add_trial(foreign))
    assert world.worker().claim().grant.number == 1
    assert world.differences() == []


def test_an_enqueued_configuration_takes_the_number_that_is_free(world, meanwhile) -> None:
    world.open(sampler=TPE)
    meanwhile(world.restarted().worker("other").claim)
    trial = world.enqueue(learning_rate=0.003)
    assert (trial.number, trial.params) == (1, {"learning_rate": 0.003})


def test_a_configuration_for_a_study_that_ended_by_then_is_refused(world, meanwhile) -> None:
    world.open(sampler=TPE)
    meanwhile(world.stop)
    with pytest.raises(Conflict, match="takes no more trials"):
        world.enqueue()
    assert world.rows("trials") == []


# ------------------------------------------------------------------ outside the writer


def test_a_report_is_stored_while_the_sampler_is_asked(world, meanwhile) -> None:
    world.open(sampler=TPE)
    held = world.worker("other").claim()
    meanwhile(lambda: held.report((10, 1.0)))
    assert world.worker().claim().grant.number == 1
    assert [row.step for row in world.rows("reports")] == [10]


def test_one_ask_at_a_time_in_a_study(small_world, monkeypatch) -> None:
    small_world.open(sampler=TPE, budget={"trials": 24})
    workers = [small_world.worker(f"w{i}") for i in range(8)]
    asked, inside, seen = Mirror.ask, [], []

    def ask(mirror, *arguments):
        inside.append(1)
        seen.append(len(inside))
        suggestion = asked(mirror, *arguments)
        inside.pop()
        return suggestion

    monkeypatch.setattr(Mirror, "ask", ask)
    threads = [threading.Thread(target=worker.run) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(seen) == 1
    assert len(seen) == len(workers)  # none was thrown away: who asks also takes


def test_a_mirror_takes_in_a_long_study_page_by_page(small_world, monkeypatch) -> None:
    for name in ("twin", "study"):
        lived(small_world, name)
    monkeypatch.setattr(suggest, "PAGE", 2)
    assert small_world.restarted().enqueue("twin").params == small_world.enqueue().params


def test_a_sampler_that_looks_at_nothing_is_asked_in_the_claim(world, monkeypatch) -> None:
    """Its suggestion is the one that is asked for outside, and the claim is one transaction."""
    world.open()
    expected = Mirror(world.ctx.studies.spec(world.study()))
    writes: list[int] = []
    write = world.db.write
    monkeypatch.setattr(world.db, "write", lambda work: (writes.append(1), write(work))[1])
    worker = world.worker()
    writes.clear()
    for number in range(5):
        assert worker.claim().grant.number == number
    assert len(writes) == 5
    params = [row.params for row in world.rows("trials")]
    assert params == [expected.ask(number).params for number in range(5)]
