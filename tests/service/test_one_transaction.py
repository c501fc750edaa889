"""Power cuts between our row and Optuna's: both are there afterwards, or neither."""

from __future__ import annotations

import pytest

from service.dispatch import claim, studies
from service.store import trials
from service.store.optuna_rows import BoundStorage
from tests.service.world import World


class Cut(Exception):
    """The power goes."""


def rows_of_both(world: World) -> list:
    theirs = [
        (t.number, t.state, t.params, t.values, t.intermediate_values, t.user_attrs)
        for t in world.optuna().trials
    ]
    ours = [world.rows(t) for t in ("studies", "trials", "attempts", "events", "checkpoints")]
    return [theirs, ours]


def after(original):
    """The same function, but the power goes as it returns."""

    def cut(*arguments, **named):
        original(*arguments, **named)
        raise Cut

    return cut


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (BoundStorage, "create_trial"),  # Optuna's row is there, ours is not
        (trials, "insert"),  # both are there
        (claim, "move"),  # granted, but its attempt is not written
    ],
)
def test_a_claim_that_is_cut_short_leaves_nothing(world, monkeypatch, place, name) -> None:
    world.open()
    world.worker().run()
    before = rows_of_both(world)
    with monkeypatch.context() as patch:
        patch.setattr(place, name, after(getattr(place, name)))
        with pytest.raises(Cut):
            world.worker().claim()
    assert rows_of_both(world) == before
    twin = world.restarted().worker("twin")
    assert twin.claim().grant.number == 1
    assert world.differences() == []


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (trials, "update"),  # ours has ended, Optuna's has not
        (BoundStorage, "set_trial_state_values"),  # both have
        (studies, "advance"),  # after everything
    ],
)
def test_an_end_that_is_cut_short_leaves_the_trial_running(world, monkeypatch, place, name) -> None:
    world.open()
    held = world.worker().claim()
    held.report((10, 2.0), (20, 1.0), (30, 0.5))
    before = rows_of_both(world)
    with monkeypatch.context() as patch:
        patch.setattr(place, name, after(getattr(place, name)))
        with pytest.raises(Cut):
            held.finish("ok", 30)
    assert rows_of_both(world) == before
    assert held.finish("ok", 30) == "COMPLETE"
    assert world.differences() == []


def test_a_study_that_is_cut_short_was_never_made(world, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(BoundStorage, "create_study", after(BoundStorage.create_study))
        with pytest.raises(Cut):
            world.open()
    with pytest.raises(KeyError):
        world.optuna()
    assert world.rows("studies") == []
    assert world.open().state == "RUNNING"


def test_a_proposal_that_was_cut_short_is_proposed_again(world, monkeypatch) -> None:
    """The sampler's memory is thrown away with the transaction that it belonged to."""
    world.open(sampler={"kind": "tpe", "seed": 1, "startup_trials": 2})
    world.open("twin", sampler={"kind": "tpe", "seed": 1, "startup_trials": 2})
    for number in range(6):
        if number % 2:
            monkeypatch.setattr(trials, "insert", after(trials.insert))
            with pytest.raises(Cut):
                world.enqueue()
            monkeypatch.undo()
        ours, twins = world.enqueue(), world.enqueue("twin")
        assert ours.params == twins.params
        world.cancel(number)
        world.cancel(number, "twin")
