"""A study brought in whole, on SQLite and PostgreSQL: both sides agree, or nothing is there."""

import math

import pytest

from service.dispatch import imports
from service.store import trials as trial_rows
from service.store.database import Database
from studies.errors import DuplicateName, InvalidInput
from studies.imports import ImportBody, ImportedTrial
from tests.service.world import World, spec

SEARCH = {"learning_rate": {"log": [1e-4, 1e-1]}, "optimizer": {"choice": ["adam", "sgd"]}}


def trial(state="COMPLETE", value=1.0, **more):
    params = {"learning_rate": 0.01, "optimizer": "sgd"}
    return ImportedTrial(**{"state": state, "params": params, "value": value, **more})


BODY = ImportBody(
    study=spec("theirs", search=SEARCH),
    trials=[
        trial(value=1.5, curve=[(10, 2.0), (30, 1.5)]),
        trial(value=0.5),
        trial("PRUNED", 3.0, curve=[(10, 3.0)]),
        trial("FAILED", None, curve=[(10, math.nan), (20, math.inf)], reason="diverged"),
        trial("CANCELLED", None, params={}),
    ],
)


def bring_in(world: World, body: ImportBody = BODY):
    whole = imports.checked(body)
    return world.db.write(lambda tx: imports.add(tx, world.ctx, whole))


def test_all_of_it_is_there_on_both_sides(world: World) -> None:
    study = bring_in(world)
    assert (study.state, study.reason) == ("ENDED", "imported")
    assert world.states("theirs") == ["COMPLETE", "COMPLETE", "PRUNED", "FAILED", "CANCELLED"]
    assert world.differences() == []
    theirs = world.optuna("theirs")
    assert (theirs.best_trial.number, theirs.best_value) == (1, 0.5)
    assert theirs.trials[0].intermediate_values == {10: 2.0, 30: 1.5}
    assert theirs.trials[3].user_attrs == {"lmtune_state": "FAILED", "lmtune_reason": "diverged"}
    view = world.reading.study("theirs")
    assert (view.best.number, view.slots, view.running_seconds) == (1, 4, pytest.approx(0.0))
    lost = world.reading.trial("theirs", 3)
    assert [str(p.metrics["validation_loss"]) for p in lost.curve] == ["nan", "inf"]
    assert [t.number for t in world.reading.watch.snapshot("theirs").data.trials] == [0, 1, 2, 3, 4]


def test_a_reader_that_goes_by_revision_sees_every_trial(world: World) -> None:
    study, seen, revision = bring_in(world), [], 0
    while True:
        rows = world.db.read(
            lambda conn, after=revision: trial_rows.changed_since(conn, study.id, after, 2)
        )
        if not rows:
            break
        seen += [row.number for row in rows]
        revision = rows[-1].revision
    assert seen == [0, 1, 2, 3, 4]
    assert world.study("theirs").revision >= revision


def test_a_name_that_is_taken_leaves_nothing_behind(world: World) -> None:
    world.open("theirs")
    with pytest.raises(DuplicateName):
        bring_in(world)
    assert world.rows("trials") == []


def test_what_breaks_in_the_middle_leaves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("the disk is full")

    monkeypatch.setattr("service.store.reports.insert_all", full)
    with pytest.raises(RuntimeError):
        bring_in(world)
    assert world.study("theirs") is None
    assert world.rows("trials") == []
    assert world.storage().get_all_studies() == []


def test_wrong_trials_are_named_before_anything_is_written(small_world: World) -> None:
    wrong = [trial(params={"learning_rate": 9.0}), trial(value=None)]
    with pytest.raises(InvalidInput) as error:
        bring_in(small_world, BODY.model_copy(update={"trials": [trial(), *wrong]}))
    fields = [one.field for one in error.value.errors]
    assert fields == ["trials.1.params.learning_rate", "trials.2.value"]
    assert small_world.study("theirs") is None


def test_many_rows_are_refused_as_one_would_be(small_world: World) -> None:
    """What a driver raises for many rows is SQLAlchemy's error, as for one."""
    database: Database = small_world.db
    whole = imports.checked(BODY)
    bad = [{**report, "step": None} for report in whole.reports[0]]
    broken = imports.Whole(whole.spec, whole.ended[:1], [bad])
    with pytest.raises(Exception, match="NOT NULL"):
        database.write(lambda tx: imports.add(tx, small_world.ctx, broken))
    assert small_world.study("theirs") is None
