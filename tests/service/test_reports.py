"""Reports: stored once, answered alike, in order, whatever number they carry."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studies import wire
from studies.errors import Conflict, InvalidInput, NotFound
from tests.service.world import Held, World, items

ASHA = {"kind": "asha", "min_steps": 10, "reduction_factor": 2}


def at_second_place(world: World, **parts) -> Held:
    """An attempt that asha will stop at step 10 when it reports more than 1.0."""
    world.open(scheduler=ASHA, **parts)
    worker = world.worker()
    worker.run(1.0)
    return worker.claim()


# ------------------------------------------------------------------ once


def test_a_report_again_has_the_stored_decision(world: World) -> None:
    held = at_second_place(world)
    first = held.report((10, 2.0))
    again = held.report((10, 2.0))
    assert (first.decision, first.duplicate) == ("stop", False)
    assert (again.decision, again.duplicate, again.accepted_through) == ("stop", True, 10)
    assert len(world.rows("reports", attempt=1, step=10)) == 2  # one per trial


def test_the_stored_decision_stands_whatever_came_later(world: World) -> None:
    """A trial that was kept stays kept though better ones have reported since."""
    world.open(scheduler=ASHA)
    worker = world.worker()
    held = worker.claim()
    assert held.report((10, 5.0)).decision == "continue"
    worker.run(1.0)
    worker.run(0.5)
    assert held.report((10, 5.0)).decision == "continue"
    world.pause()
    assert held.report((10, 5.0)).decision == "continue"
    assert held.report((20, 5.0)).decision == "pause"


@pytest.mark.parametrize(
    "other",
    [
        {"metrics": {"validation_loss": 2.0000001}},
        {"metrics": {"validation_loss": 2.0, "train_loss": 1.0}},
        {"tokens": 5},
    ],
)
def test_another_report_at_a_stored_step_is_a_conflict(world: World, other) -> None:
    world.open()
    held = world.worker().claim()
    held.report((10, 2.0))
    stored = world.rows("reports")
    item = wire.ReportItem(**({"step": 10, "metrics": {"validation_loss": 2.0}} | other))
    with pytest.raises(Conflict, match="another report was stored at step 10"):
        held.send([item])
    assert world.rows("reports") == stored


def test_the_order_of_metrics_is_no_difference(small_world: World) -> None:
    small_world.open()
    held = small_world.worker().claim()
    metrics = {"validation_loss": 2.0, "train_loss": 1.5}
    held.send([wire.ReportItem(step=10, metrics=metrics)])
    turned = dict(reversed(metrics.items()))
    assert held.send([wire.ReportItem(step=10, metrics=turned)]).duplicate


# ------------------------------------------------------------------ batches


def test_a_batch_stops_at_the_first_stop(world: World) -> None:
    held = at_second_place(world)
    answer = held.report((10, 2.0), (20, 1.9), (30, 0.1))
    assert (answer.accepted_through, answer.decision) == (10, "stop")
    assert held.report((10, 2.0), (20, 1.9), (30, 0.1)) == answer.model_copy(
        update={"duplicate": True}
    )
    trial = world.rows("trials", number=1)[0]
    assert (trial.step, trial.value) == (10, 2.0)
    assert held.finish("pruned", 10) == "PRUNED"


def test_a_batch_that_overlaps_stores_what_is_new(world: World) -> None:
    world.open()
    held = world.worker().claim()
    held.report((10, 3.0))
    answer = held.report((10, 3.0), (20, 2.0))
    assert (answer.accepted_through, answer.duplicate) == (20, False)
    assert [row.step for row in world.rows("reports")] == [10, 20]


def test_a_batch_with_a_wrong_item_stores_none(world: World) -> None:
    world.open()
    held = world.worker().claim()
    wrong = [
        ([*items((10, 1.0)), wire.ReportItem(step=20, metrics={"train_loss": 1.0})], InvalidInput),
        (items((20, 1.0), (10, 1.0)), Conflict),
        (items((10, 1.0), (31, 1.0)), Conflict),
    ]
    for batch, refusal in wrong:
        with pytest.raises(refusal):
            held.send(batch)
        assert world.rows("reports") == []
        assert world.trial().step == 0


def test_steps_rise(small_world: World) -> None:
    small_world.open()
    held = small_world.worker().claim()
    held.report((20, 1.0))
    with pytest.raises(Conflict, match=r"not in \(20, 30\]"):
        held.report((10, 1.0))


# ------------------------------------------------------------------ decisions


def test_at_the_last_step_it_is_always_continue(small_world: World) -> None:
    held = at_second_place(small_world)
    small_world.stop()
    assert held.report((30, 99.0)).decision == "continue"
    assert held.finish("ok", 30) == "COMPLETE"


@pytest.mark.parametrize(
    ("action", "decision"), [("pause", "pause"), ("stop", "stop"), ("cancel", "cancel")]
)
def test_what_people_want_is_the_decision(small_world: World, action, decision) -> None:
    small_world.open()
    held = small_world.worker().claim()
    if action == "cancel":
        small_world.cancel(0)
    else:
        getattr(small_world, action)()
    assert held.report((10, 1.0)).decision == decision
    assert held.heartbeat(10) == decision


def test_a_stop_says_who_stopped_it(world: World) -> None:
    held = at_second_place(world)
    held.report((10, 2.0))
    held.finish("pruned", 10)
    assert world.trial(1).reason == "asha at step 10"


def test_a_larger_value_is_better_when_maximised(small_world: World) -> None:
    held = at_second_place(small_world, objective={"direction": "maximize"})
    assert held.report((10, 2.0)).decision == "continue"
    held.finish("preempted", 10)
    worse = small_world.worker("w2").claim_as(1)
    assert worse.grant.number == 1
    another = small_world.worker("w3").claim()
    assert another.report((10, 0.5)).decision == "stop"


# ------------------------------------------------------------------ numbers


SPECIAL = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("value", SPECIAL)
def test_numbers_that_are_not_finite_travel(world: World, value) -> None:
    world.open()
    held = world.worker().claim()
    held.report((10, 1.0), (20, value))
    assert held.report((20, value)).duplicate
    row = world.rows("reports", step=20)[0]
    assert (row.value, row.special) == (None, wire.number_to_json(value))
    shown = world.reading.trial("study", 0)
    assert str(shown.curve[1].metrics["validation_loss"]) == str(value)
    assert json.loads(shown.model_dump_json())["curve"][1]["metrics"] == {
        "validation_loss": wire.number_to_json(value)
    }
    held.finish("diverged", 20)
    theirs = world.optuna().trials[0].intermediate_values
    assert {step: str(v) for step, v in theirs.items()} == {10: "1.0", 20: str(value)}
    assert world.differences() == []


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.floats())
def test_every_number_is_kept_to_the_bit(small_world: World, value: float) -> None:
    name = f"s{len(small_world.rows('studies'))}"
    small_world.open(name, budget={"trials": 1})
    held = small_world.worker().claim()
    held.report((30, value))
    held.finish("ok" if math.isfinite(value) else "diverged", 30)
    kept = small_world.optuna(name).trials[0].intermediate_values[30]
    assert repr(kept) == repr(value)


def test_a_trial_that_never_was_is_not_found(small_world: World) -> None:
    small_world.open()
    held = small_world.worker().claim()
    held.grant = held.grant.model_copy(update={"trial_id": 77})
    for call in (held.report, lambda *_: held.heartbeat(), lambda *_: held.finish("error")):
        with pytest.raises(NotFound):
            call((10, 1.0))


def test_a_log_keeps_its_end(small_world: World) -> None:
    small_world.open()
    held = small_world.worker().claim()
    held.log("é" * 40_000 + "\x00")
    for _ in range(30):
        held.log("x" * 65_536)
    held.log("the end")
    text = small_world.reading.log("study", 0, 1)
    assert len(text.encode()) == 1 << 20
    assert text.endswith("xthe end")
    assert "\x00" not in text
