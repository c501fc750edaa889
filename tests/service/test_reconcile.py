"""reconcile: nothing to say of what the server did, one line for each thing done by hand."""

from __future__ import annotations

import re

import optuna
import pytest
import sqlalchemy as sa

from service import reconcile
from studies.trial import TrialState
from tests.service.world import LEASE, World


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


def test_every_page_is_compared(world: World, monkeypatch) -> None:
    monkeypatch.setattr(reconcile, "PAGE", 2)
    world.open()
    worker = world.worker()
    for _ in range(5):
        worker.run()
    assert world.differences() == []
    for number in (0, 2, 4):
        world.change("trials", {"number": number}, value=0.25)
    assert len(world.differences()) == 3


def test_foreign_trials_are_passed_over(small_world: World) -> None:
    three_trials(small_world)
    small_world.optuna().ask()
    optuna.create_study(study_name="theirs", storage=small_world.storage()).ask()
    assert small_world.differences() == []


# ------------------------------------------------------------------ somebody else writes


def test_a_trial_that_was_ended_through_optuna_ends_here_by_our_rules(world: World) -> None:
    world.open(budget={"trials": 1})
    held = world.worker().claim()
    held.report((10, 1.0))
    world.optuna().tell(0, state=optuna.trial.TrialState.FAIL)
    held.report((20, 1.0), (30, 0.5))
    assert held.finish("ok", 30) == "COMPLETE"
    assert (world.study().state, world.reading.best("study").value) == ("ENDED", 0.5)
    assert world.differences() == ["study study trial 0: it is COMPLETE here and FAIL in Optuna"]


def test_a_lost_trial_that_was_ended_through_optuna_holds_no_sweep_up(world: World) -> None:
    world.open()
    for name in "ab":
        world.worker(name).claim()
    world.optuna().tell(0, 7.0)
    world.stop()
    world.advance(3 * LEASE)
    world.sweep()
    assert world.states() == ["PRUNED", "PRUNED"]
    assert world.study().state == "ENDED"
    assert world.differences() == ["study study trial 0: it is PRUNED here and COMPLETE in Optuna"]


def test_what_was_reported_through_optuna_gives_way_to_the_visible_reports(world: World) -> None:
    world.open()
    held = world.worker().claim()
    held.report((10, 1.0))
    for step in (10, 15):
        world.storage().set_trial_intermediate_value(their_id(world, 0), step, 9.0)
    held.report((20, 1.0), (30, 0.5))
    assert held.finish("ok", 30) == "COMPLETE"
    assert world.differences() == []


def test_a_trial_that_was_removed_from_optuna_ends_and_is_said(world: World) -> None:
    world.open()
    held = world.worker().claim()
    theirs = their_id(world, 0)
    for name in ("trial_params", "trials"):
        gone = sa.table(name, sa.column("trial_id"))
        world.db.write(lambda tx, t=gone: tx.conn.execute(t.delete().where(t.c.trial_id == theirs)))
    assert held.train(1.0) == "COMPLETE"
    assert world.differences() == ["study study trial 0: Optuna has no such trial"]
