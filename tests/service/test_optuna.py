"""Optuna's rows and ours change in one transaction and say the same, by protocol.md's mapping."""

from __future__ import annotations

import math

import optuna
import pytest
from optuna.trial import TrialState as Theirs

from service.dispatch import settle, studies
from service.store.optuna_rows import BoundStorage
from studies.errors import Conflict, DuplicateName
from tests.service.world import LEASE, World, spec

MEDIAN = {"kind": "median", "min_steps": 10, "startup_trials": 1}
SEARCH = {
    "learning_rate": {"log": [1e-4, 1e-1]},
    "regularizer": {"choice": ["none", "l1"]},
    "lambda": {"log": [1e-8, 1e-2], "when": {"regularizer": "l1"}},
    "layers": {"uniform": [1, 3]},
    "tied_weights": {"choice": [False]},
}


def every_state(world: World) -> None:
    """A study with trials in every state but PAUSED."""
    world.open(scheduler=MEDIAN, search=SEARCH, budget={"trials": 20})
    worker = world.worker()
    worker.run(1.0)
    worker.run(2.0)
    diverged, cancelled, runs, released, unlucky = (worker.claim() for _ in range(5))
    diverged.report((10, 1.0), (20, math.inf))
    diverged.finish("diverged", 20, "the loss is inf")
    cancelled.report((10, 0.5))
    world.cancel(3)
    cancelled.finish("error", 10)
    runs.report((10, 0.75))
    unlucky.report((10, math.nan))
    unlucky.finish("pruned", 10)
    released.finish("preempted", 0)


def mapped(row) -> Theirs:
    return {"COMPLETE": Theirs.COMPLETE, "PRUNED": Theirs.PRUNED}.get(
        row.state, Theirs.FAIL if row.ended_at else Theirs.RUNNING
    )


def assert_same(world: World, name: str = "study") -> None:
    """What plain Optuna reads is what the API shows."""
    theirs = world.optuna(name).trials
    ours = world.reading.trials(name).items
    assert [trial.number for trial in theirs] == [view.number for view in ours]
    for trial, view in zip(theirs, ours, strict=True):
        detail = world.reading.trial(name, view.number)
        curve = {point.step: point.metrics["validation_loss"] for point in detail.curve}
        over = view.ended_at is not None
        assert trial.state is mapped(view)
        assert trial.params == view.params
        assert trial.values == ([view.value] if has_value(view) else None)
        assert str(trial.intermediate_values) == str(curve if over else {})
        assert (trial.datetime_complete is not None) == over
    assert world.differences() == []


def has_value(view) -> bool:
    return view.state in ("COMPLETE", "PRUNED") and view.value is not None


def test_every_state_is_mapped(world: World) -> None:
    every_state(world)
    states = ["COMPLETE", "PRUNED", "FAILED", "CANCELLED", "RUNNING", "WAITING", "PRUNED"]
    assert world.states() == states
    assert_same(world)
    theirs = world.optuna().trials
    assert theirs[6].values is None  # its last value is not a number
    assert theirs[2].user_attrs == {
        "lmtune_state": "FAILED",
        "lmtune_reason": "diverged: the loss is inf",
    }
    assert theirs[3].user_attrs == {"lmtune_state": "CANCELLED", "lmtune_reason": "cancelled"}


def test_what_waits_or_pauses_is_running_to_optuna(world: World) -> None:
    world.open()
    held = world.worker().claim()
    world.enqueue()
    held.report((10, 1.0))
    world.pause()
    held.finish("paused", 10)
    assert world.states() == ["PAUSED", "WAITING"]
    assert [trial.state for trial in world.optuna().trials] == [Theirs.RUNNING] * 2
    assert_same(world)


def test_the_study_is_an_ordinary_one(world: World) -> None:
    world.open(objective={"direction": "maximize"})
    worker = world.worker()
    worker.run(1.0)
    worker.run(3.0)
    study = world.optuna()
    assert study.direction is optuna.study.StudyDirection.MAXIMIZE
    assert (study.best_trial.number, study.best_value) == (1, 3.0)
    assert study.best_params == world.reading.best("study").params
    assert world.reading.study("study").best.number == 1


def test_distributions_are_those_of_the_study_file(small_world: World) -> None:
    small_world.open(search=SEARCH, sampler={"kind": "random", "seed": 1})
    for _ in range(6):
        small_world.enqueue()
    for trial in small_world.optuna().trials:
        assert ("lambda" in trial.params) == (trial.params["regularizer"] == "l1")
        for name, value in trial.params.items():
            assert trial.distributions[name]._contains(
                trial.distributions[name].to_internal_repr(value)
            )
    found = small_world.optuna().trials[0].distributions
    assert found["learning_rate"] == optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True)
    assert found["layers"] == optuna.distributions.IntDistribution(1, 3)


# ------------------------------------------------------------------ others in the same tables


def test_foreign_trials_are_never_touched(world: World) -> None:
    world.open()
    worker = world.worker()
    worker.run()
    foreign = world.optuna()
    foreign.add_trial(
        optuna.trial.create_trial(
            params={"x": 1.0},
            distributions={"x": optuna.distributions.FloatDistribution(0, 2)},
            value=0.0,
        )
    )
    asked = foreign.ask()
    foreign.enqueue_trial({"x": 2.0})
    before = [t for t in world.optuna().trials if t.number in (1, 2, 3)]
    numbers = [worker.run().grant.number for _ in range(3)]
    assert numbers == [4, 5, 6]
    assert [t for t in world.optuna().trials if t.number in (1, 2, 3)] == before
    foreign.tell(asked, 5.0)
    assert worker.claim().grant.number == 7
    assert world.study().state == "RUNNING"
    assert len(world.reading.trials("study").items) == 5
    assert world.differences() == []


def test_foreign_trials_fill_no_slot(small_world: World) -> None:
    small_world.open(budget={"trials": 2})
    for _ in range(5):
        small_world.optuna().ask()
    worker = small_world.worker()
    assert [worker.run().grant.number for _ in range(2)] == [5, 6]
    assert small_world.study().state == "ENDED"


def test_a_name_that_optuna_knows_is_taken(world: World) -> None:
    storage = world.storage()
    optuna.create_study(study_name="theirs", storage=storage)
    with pytest.raises(DuplicateName, match="theirs exists"):
        world.open("theirs")
    assert world.rows("studies") == []
    assert len(storage.get_all_studies()) == 1


def test_a_name_taken_at_the_same_moment_is_a_duplicate(world: World, monkeypatch) -> None:
    """Another Optuna writes the name after we looked."""
    world.open()
    monkeypatch.setattr(BoundStorage, "has_study", lambda *_: False)
    monkeypatch.setattr(studies.studies, "by_name", lambda *_: None)
    with pytest.raises(DuplicateName):
        world.db.write(lambda tx: studies.open_study(tx, world.ctx, spec()))
    assert len(world.rows("studies")) == 1


def test_nothing_but_settle_ends_a_trial(world: World) -> None:
    """A lease that is over leaves Optuna's row RUNNING until someone claims and finishes it."""
    world.open(budget={"trials": 1})
    worker = world.worker()
    worker.claim().report((10, 1.0))
    world.advance(LEASE * 2)
    world.sweep()
    assert_same(world)
    worker.run()
    assert_same(world)
    assert settle.ATTEMPTS == 4


def test_a_study_that_is_deleted_from_optuna_ends_and_holds_up_no_other(world: World) -> None:
    """As any reader of an optuna-dashboard can do."""
    world.open("deleted")
    running = world.worker().claim()
    optuna.delete_study(study_name="deleted", storage=world.storage())
    world.open("other")
    worker = world.worker()
    assert [worker.claim().grant.study for _ in range(2)] == ["other", "other"]
    assert running.train() == "PRUNED"
    assert worker.claim().grant.study == "other"
    assert [trial.state for trial in world.optuna("other").trials] == [Theirs.RUNNING] * 3
    assert (world.study("deleted").state, world.study("deleted").reason) == ("ENDED", "deleted")
    with pytest.raises(Conflict, match="ENDED"):
        world.enqueue("deleted")
