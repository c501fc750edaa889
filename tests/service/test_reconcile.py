"""reconcile: nothing to say of what the server did, one line for each thing done by hand."""

from __future__ import annotations

import re

import optuna
import pytest

from studies.trial import TrialState
from tests.service.world import World


def three_trials(world: World) -> None:
    """0 is COMPLETE, 1 is PRUNED at step 10, 2 RUNS."""
    world.open()
    worker = world.worker()
    worker.run(1.0)
    stopped = worker.claim()
    stopped.report((10, 2.0))
    world.change("trials", {"number": 1}, desired="stop", desired_t=0.0)
    stopped.finish("pruned", 10)
    worker.claim()


def their_id(world: World, number: int) -> int:
    return world.trial(number).optuna_id


def test_there_is_nothing_to_say_of_an_untouched_database(world: World) -> None:
    assert world.differences() == []
    three_trials(world)
    assert world.differences() == []


BY_HAND = [
    ("trials", 0, {"state": "FAIL"}, "it is COMPLETE here and FAIL in Optuna"),
    ("trials", 2, {"state": "COMPLETE"}, "it is RUNNING here and COMPLETE in Optuna"),
    ("trials", 0, {"number": 7}, "its number is 7 in Optuna"),
    ("trial_values", 0, {"value": 1.5}, "its value is 1.0 here and 1.5 in Optuna"),
    ("trial_values", 1, {"value": -2.0}, "its value is 2.0 here and -2.0 in Optuna"),
    ("trial_params", 0, {"param_value": 0.5}, "its parameters are .* in Optuna"),
    ("trial_params", 2, {"param_value": 0.5}, "its parameters are .* in Optuna"),
    ("trial_intermediate_values", 1, {"intermediate_value": 9.0}, "its curve"),
    ("trial_intermediate_values", 1, {"step": 11}, "its curve"),
]


@pytest.mark.parametrize(("table", "number", "values", "says"), BY_HAND)
def test_what_was_changed_in_optunas_rows_is_said(small_world, table, number, values, says) -> None:
    three_trials(small_world)
    small_world.change_theirs(table, {"trial_id": their_id(small_world, number)}, **values)
    (line,) = small_world.differences()
    assert re.fullmatch(f"study study trial {number}: {says}.*", line)


OURS = [
    ({"state": TrialState.FAILED}, "it is FAILED here and COMPLETE in Optuna"),
    ({"value": 0.25}, "its value is 0.25 here and 1.0 in Optuna"),
    ({"params": {"learning_rate": 1.0}}, "its parameters are .* in Optuna"),
    ({"optuna_id": 999}, "Optuna has no such trial"),
]


@pytest.mark.parametrize(("values", "says"), OURS)
def test_what_was_changed_in_our_rows_is_said(world: World, values, says) -> None:
    three_trials(world)
    world.change("trials", {"number": 0}, **values)
    (line,) = world.differences()
    assert re.fullmatch(f"study study trial 0: {says}.*", line)


def test_a_hidden_report_is_missed(small_world: World) -> None:
    three_trials(small_world)
    small_world.change("reports", {"step": 20}, superseded=True)
    (line,) = small_world.differences()
    assert line == "study study trial 0: its curve has 2 values here and 3 in Optuna, or others"


def test_a_study_that_was_deleted_from_optuna_is_said(world: World) -> None:
    world.open()
    optuna.delete_study(study_name="study", storage=world.storage())
    assert world.differences() == ["study study: Optuna has no such study"]


def test_an_ended_study_with_a_live_trial_is_said(small_world: World) -> None:
    three_trials(small_world)
    small_world.change("studies", {"name": "study"}, state="ENDED")
    assert small_world.differences() == ["study study: it has ENDED with live trials"]


def test_every_difference_is_said(small_world: World) -> None:
    three_trials(small_world)
    small_world.open("second")
    small_world.worker("b").claim()
    for row in small_world.rows("trials"):
        small_world.change("trials", {"id": row.id}, params={"learning_rate": 1.0})
    assert len(small_world.differences()) == 4


def test_foreign_trials_are_passed_over(small_world: World) -> None:
    three_trials(small_world)
    small_world.optuna().ask()
    optuna.create_study(study_name="theirs", storage=small_world.storage()).ask()
    assert small_world.differences() == []
