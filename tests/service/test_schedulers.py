"""Schedulers: pure, and one with Optuna's pruners on recorded histories."""

from __future__ import annotations

import math
import random
from copy import deepcopy

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.tuning.schedulers import Judged, decide, judged_at, rung_steps
from studies.parts import Scheduler
from studies.trial import Decision
from tests.service.world import World

STEPS, EVERY = 27, 1
VALUES = st.floats(allow_nan=True, allow_infinity=True)
JUDGED = st.builds(
    Judged,
    step=st.integers(1, 100),
    value=VALUES,
    own=st.lists(VALUES, min_size=1, max_size=5),
    others=st.lists(VALUES, max_size=20),
    complete=st.integers(0, 20),
)
SCHEDULERS = st.builds(
    Scheduler,
    kind=st.sampled_from(["asha", "median"]),
    min_steps=st.integers(1, 10),
    reduction_factor=st.integers(2, 5),
    startup_trials=st.integers(0, 6),
)


@given(SCHEDULERS, JUDGED)
def test_the_same_rows_get_the_same_decision(scheduler, judged) -> None:
    before = deepcopy(judged)
    first = decide(scheduler, judged)
    assert first in (Decision.CONTINUE, Decision.STOP)
    assert decide(scheduler, judged) is first
    assert repr(judged) == repr(before)


@given(SCHEDULERS, JUDGED, st.randoms())
def test_the_order_of_the_others_is_no_matter(scheduler, judged, draw) -> None:
    shuffled = draw.sample(list(judged.others), len(judged.others))
    again = Judged(judged.step, judged.value, judged.own, shuffled, judged.complete)
    assert decide(scheduler, judged) is decide(scheduler, again)


@given(SCHEDULERS, JUDGED)
def test_the_best_so_far_goes_on(scheduler, judged) -> None:
    best = Judged(judged.step, -1e308, [-1e308], [v for v in judged.others if v > -1e308], 20)
    assert decide(scheduler, best) is Decision.CONTINUE


@given(st.lists(VALUES, max_size=20), st.integers(2, 5))
def test_asha_stops_a_loss_that_is_not_a_number(others, factor) -> None:
    judged = Judged(10, math.nan, [math.nan], others, 3)
    assert decide(Scheduler(kind="asha", reduction_factor=factor), judged) is Decision.STOP


# ------------------------------------------------------------------ when they look


def test_rungs_are_powers_of_the_factor_at_evaluations() -> None:
    scheduler = Scheduler(kind="asha", min_steps=100, reduction_factor=3)
    assert rung_steps(scheduler, 50, 1_500) == [100, 300, 900]
    assert rung_steps(scheduler, 70, 1_500) == [140, 350, 910]
    assert rung_steps(scheduler, 100, 900) == [100, 300]
    assert rung_steps(scheduler, 2_000, 1_500) == []


@pytest.mark.parametrize(
    ("kind", "looks"),
    [("none", []), ("median", [20, 30, 40, 50]), ("asha", [20, 40])],
)
def test_they_look_at_their_steps_only(kind, looks) -> None:
    scheduler = Scheduler(kind=kind, min_steps=20, reduction_factor=2)
    assert [s for s in range(10, 70, 10) if judged_at(scheduler, s, 10, 60)] == looks


# ------------------------------------------------------------------ against Optuna's pruners


def histories(seed: int, strange: list[float]) -> list[list[float]]:
    """What 25 trials would report at steps 1 to STEPS, some of it strange in odd histories."""
    draw = random.Random(seed)
    strange = strange if seed % 2 else []

    def value(level: float) -> float:
        if strange and draw.random() < 0.05:
            return draw.choice(strange)
        return level + draw.choice([0.0, draw.gauss(0, 0.3)])

    levels = [draw.choice([1.0, 2.0, 3.0, draw.random()]) for _ in range(25)]
    return [[value(level) for _ in range(STEPS)] for level in levels]


def schedule(seed: int) -> list[int]:
    """Which trial reports next: up to four run at once."""
    draw, running, waiting, order = random.Random(seed), [], list(range(25)), []
    left = dict.fromkeys(range(25), STEPS)
    while waiting or running:
        while waiting and len(running) < 4:
            running.append(waiting.pop(0))
        trial = draw.choice(running)
        order.append(trial)
        left[trial] -= 1
        if not left[trial]:
            running.remove(trial)
    return order


class Ours:
    """The reports of a study as the server's rows hold them, and our decisions on them."""

    def __init__(self, scheduler: Scheduler, direction: str) -> None:
        self.scheduler, self.sign = scheduler, 1.0 if direction == "minimize" else -1.0
        self.curves: dict[int, list[float]] = {}
        self.complete: set[int] = set()

    def stops(self, trial: int, value: float) -> bool:
        own = self.curves.setdefault(trial, [])
        own.append(self.sign * value)
        step = len(own)
        if step == STEPS:
            self.complete.add(trial)
        if not judged_at(self.scheduler, step, EVERY, STEPS):
            return False
        of = self.complete if self.scheduler.kind == "median" else self.curves
        others = [
            curve[step - 1]
            for number, curve in self.curves.items()
            if number != trial and number in of and len(curve) >= step
        ]
        judged = Judged(step, own[-1], own, others, len(self.complete))
        return decide(self.scheduler, judged) is Decision.STOP


def replay(scheduler: Scheduler, pruner, direction: str, seed: int) -> list[tuple[int, int]]:
    """Replays one history to both; returns (trial, step) of every stop, the same for both."""
    study = optuna.create_study(direction=direction, pruner=pruner)
    # MedianPruner's percentile makes a NaN of any infinity near the median; ours is the median.
    strange = [math.nan] + [math.inf, -math.inf] * (scheduler.kind == "asha")
    ours, values = Ours(scheduler, direction), histories(seed, strange)
    trials: dict[int, optuna.Trial] = {}
    stopped: list[tuple[int, int]] = []
    over: set[int] = set()
    for number in schedule(seed):
        if number in over:
            continue
        trial = trials.setdefault(number, None) or study.ask()
        trials[number] = trial
        step = len(ours.curves.get(number, ())) + 1
        value = values[number][step - 1]
        trial.report(value, step)
        stops = ours.stops(number, value)
        if step == STEPS:
            over.add(number)
            good = math.isfinite(value)
            study.tell(trial, value if good else None, state=None if good else FAIL)
            ours.complete -= set() if good else {number}
            continue
        assert trial.should_prune() == stops, f"trial {number} at step {step}: {value}"
        if stops:
            over.add(number)
            stopped.append((number, step))
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    return stopped


FAIL = optuna.trial.TrialState.FAIL


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize(("first", "factor"), [(1, 3), (3, 3), (2, 2), (1, 4)])
def test_asha_decides_as_optunas_successive_halving(seed, direction, first, factor) -> None:
    scheduler = Scheduler(kind="asha", min_steps=first, reduction_factor=factor)
    pruner = optuna.pruners.SuccessiveHalvingPruner(
        min_resource=first, reduction_factor=factor, min_early_stopping_rate=0
    )
    assert replay(scheduler, pruner, direction, seed)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.filterwarnings("ignore:All-NaN slice")  # Optuna's, at a step without a number
@pytest.mark.parametrize(("first", "startup"), [(1, 1), (5, 3), (1, 0)])
def test_median_decides_as_optunas_median_pruner(seed, direction, first, startup) -> None:
    scheduler = Scheduler(kind="median", min_steps=first, startup_trials=startup)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=first)
    assert replay(scheduler, pruner, direction, seed)


# ------------------------------------------------------------------ on the database


def test_asha_on_a_database_stops_as_it_should(world: World) -> None:
    """Six trials at step 10, each against those before it; one in two is kept."""
    world.open(scheduler={"kind": "asha", "min_steps": 10, "reduction_factor": 2})
    worker = world.worker()
    decisions = [
        str(worker.claim().report((10, value)).decision)
        for value in (5.0, 4.0, 6.0, 4.5, math.nan, 3.0)
    ]
    assert decisions == ["continue", "continue", "stop", "continue", "stop", "continue"]


def test_median_on_a_database_waits_for_complete_trials(world: World) -> None:
    world.open(scheduler={"kind": "median", "min_steps": 10, "startup_trials": 2})
    worker = world.worker()
    worker.run(1.0)
    assert worker.claim().report((10, 9.0)).decision == "continue"
    worker.run(2.0)
    assert worker.claim().report((10, 1.6)).decision == "stop"
    assert worker.claim().report((10, 1.5)).decision == "continue"
