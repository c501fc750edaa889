"""What people change of a study that goes on: its budget, and a narrower search space."""

from __future__ import annotations

import pytest

from service.dispatch import steer
from studies.changes import ChangeBody
from studies.errors import Conflict, InvalidInput
from studies.spec import StudySpec
from tests.service.world import World

SEARCH = {
    "learning_rate": {"log": [1e-4, 1e-1]},
    "regularizer": {"choice": ["none", "l1", "l2"]},
    "lambda": {"log": [1e-8, 1e-2], "when": {"regularizer": ["l1", "l2"]}},
    "embedding_dim": {"uniform": [64, 256], "step": 64},
}


def change(world: World, **parts) -> StudySpec:
    body = ChangeBody.model_validate(parts)
    row = world.db.write(lambda tx: steer.change(tx, world.ctx, "study", body))
    return world.ctx.studies.spec(row)


def kinds(world: World) -> list[str]:
    return [event.kind for event in reversed(world.reading.history("study").items)]


def test_a_study_with_a_larger_budget_goes_on(world: World) -> None:
    world.open(budget={"trials": 1})
    worker, other = world.worker(), world.worker("other")
    held = worker.claim()
    assert other.claim() is None
    rings = world.rings
    assert change(world, budget={"trials": 2}).budget.trials == 2
    assert world.rings > rings  # who waits hears of it
    also = other.claim()
    held.train()
    assert world.study().state == "RUNNING"
    also.train()
    assert (world.study().state, world.study().reason) == ("ENDED", "budget")
    said = world.reading.history("study").items[-2]
    assert (said.kind, said.detail) == ("budget_changed", {"changes": {"trials": [1, 2]}})
    assert world.differences() == []


def test_a_budget_that_is_used_up_ends_the_study(world: World) -> None:
    world.open(budget={"trials": 8})
    world.worker().run()
    change(world, budget={"trials": 1})
    assert world.study().state == "ENDED"


def test_another_server_of_the_database_follows_the_change(world: World) -> None:
    world.open(budget={"trials": 1}, search=SEARCH)
    other = world.restarted()
    other.worker().claim()
    assert other.worker("b").claim() is None
    change(world, budget={"trials": 2}, search={"learning_rate": {"log": [1e-3, 2e-3]}})
    assert 1e-3 <= other.worker("b").claim().grant.recipe.train.learning_rate <= 2e-3


@pytest.mark.parametrize("kind", ["random", "tpe", "qmc"])
def test_a_narrowed_space_is_where_the_sampler_goes_on(small_world: World, kind: str) -> None:
    sampler = {"kind": kind, "startup_trials": 3}
    small_world.open(search=SEARCH, sampler=sampler, budget={"trials": 100})
    worker = small_world.worker()
    for number in range(12):
        worker.run(value=1.0 + number)
    change(
        small_world,
        search={
            "learning_rate": {"log": [1e-3, 1e-2]},
            "regularizer": {"choice": ["none", "l2"]},
            "embedding_dim": {"uniform": [128, 192]},
        },
    )
    for number in range(12):
        recipe = (held := worker.claim()).grant.recipe
        assert 1e-3 <= recipe.train.learning_rate <= 1e-2
        assert recipe.train.regularizer in ("none", "l2")
        assert recipe.model.embedding_dim in (128, 192)
        held.train(value=1.0 + number)
    assert small_world.differences() == []
    assert len(small_world.optuna().trials) == 24  # plain Optuna reads it


def test_a_condition_loses_what_is_no_longer_searched(small_world: World) -> None:
    small_world.open(search=SEARCH)
    spec = change(small_world, search={"regularizer": {"choice": ["none", "l2"]}})
    assert spec.document()["search"]["lambda"]["when"] == {"regularizer": ["l2"]}
    assert list(spec.search) == list(SEARCH)


def test_an_offer_from_before_is_asked_for_again(small_world: World, monkeypatch) -> None:
    """The space is narrowed between an ask and the transaction that would take its answer."""
    small_world.open(search=SEARCH, sampler={"kind": "tpe"})
    from service.tuning.mirror import Mirror

    ask, narrow = Mirror.ask, {"learning_rate": {"log": [1e-3, 2e-3]}}

    def meanwhile(mirror, number, fixed=None):
        answer = ask(mirror, number, fixed)
        change(small_world, search=narrow)
        return answer

    monkeypatch.setattr(Mirror, "ask", meanwhile)
    assert small_world.worker().claim() is None
    monkeypatch.undo()
    assert 1e-3 <= small_world.worker().claim().grant.recipe.train.learning_rate <= 2e-3


WRONG = [
    (
        {"search": {"learning_rate": {"log": [1e-5, 1e-2]}}},
        "search.learning_rate.log: 1e-05 is out",
    ),
    ({"search": {"learning_rate": {"uniform": [1e-3, 1e-2]}}}, "uniform: cannot be changed"),
    ({"search": {"learning_rate": {"log": [1e-2, 1e-3]}}}, "is not below the upper bound"),
    ({"search": {"learning_rat": {"log": [1e-3, 1e-2]}}}, "did you mean learning_rate"),
    ({"search": {"regularizer": {"choice": ["l3"]}}}, "search.regularizer.choice: 'l3' is not"),
    ({"search": {"regularizer": {"choice": ["none"]}}}, "lambda would never be searched"),
    ({"search": {"embedding_dim": {"uniform": [64, 200]}}}, "no whole number of steps"),
    ({"search": {"embedding_dim": {"uniform": [64, 128], "step": 32}}}, "step: cannot be changed"),
    ({"budget": {"trials": 0}}, "trials"),
    ({"budget": {"trials": None}}, "budget.trials: is null"),
]


@pytest.mark.parametrize(("parts", "says"), WRONG)
def test_what_is_no_narrower_is_refused_and_changes_nothing(small_world, parts, says) -> None:
    small_world.open(search=SEARCH)
    before = small_world.study()
    with pytest.raises(ValueError if says == "trials" else InvalidInput, match=says):
        change(small_world, **parts)
    assert small_world.study() == before
    assert kinds(small_world) == ["study_running"]


def test_what_is_used_already_is_no_budget(small_world: World) -> None:
    small_world.open(budget={"trials": 8, "wall_time": "10m"})
    for name in "ab":
        small_world.worker(name).claim()
    small_world.advance(120)
    with pytest.raises(InvalidInput, match="2 trials are there already"):
        change(small_world, budget={"trials": 1})
    with pytest.raises(InvalidInput, match="has run for 120 s already"):
        change(small_world, budget={"wall_time": "2m"})
    assert change(small_world, budget={"wall_time": None}).budget.wall_time is None
    small_world.advance(3_600)
    small_world.sweep()
    assert small_world.study().state == "RUNNING"


def test_only_a_study_that_goes_on_is_changed(small_world: World) -> None:
    small_world.open()
    small_world.pause()
    change(small_world, budget={"trials": 9})
    small_world.stop()
    with pytest.raises(Conflict, match="create another like it"):
        change(small_world, budget={"trials": 10})


def test_a_trial_stands_among_the_complete_ones(world: World) -> None:
    world.open()
    worker = world.worker()
    for value in (2.0, 1.0, 3.0):
        worker.run(value)
    held = worker.claim()
    held.report((10, 1.0))
    held.checkpoint(10)
    held.log("a line\n")
    read = world.reading.standing
    assert [(read("study", n).rank, read("study", n).complete) for n in range(4)] == [
        (2, 3),
        (1, 3),
        (3, 3),
        (None, 3),
    ]
    assert (read("study", 3).checkpoint, read("study", 3).log) == (10, "a line\n")
    assert read("study", 0).checkpoint is None
    world.enqueue(learning_rate=0.01)
    assert read("study", 4).rank is None


def test_the_history_tells_what_people_did_and_not_every_trial(small_world: World) -> None:
    small_world.open()
    small_world.worker().run()
    small_world.enqueue(learning_rate=0.01)
    small_world.cancel(1)
    small_world.pause()
    change(small_world, budget={"trials": 9})
    change(small_world, budget={"trials": 9})  # is no change
    small_world.resume()
    assert kinds(small_world) == [
        "study_running",
        "enqueued",
        "cancel_asked",
        "study_paused",
        "budget_changed",
        "study_running",
    ]
    first = small_world.reading.history("study", limit=2)
    rest = small_world.reading.history("study", first.next, limit=100)
    assert len(first.items) + len(rest.items) == 6
    assert first.items[1].detail == {"changes": {"trials": [8, 9]}}
