"""The window: TPE is shown what it would decide by, and of the rest the latest."""

from __future__ import annotations

import random

import pytest
from optuna.samplers._tpe.sampler import _split_trials, default_gamma
from optuna.study import create_study
from optuna.trial import FrozenTrial, TrialState, create_trial

from service.tuning import window
from service.tuning.mirror import Mirror, Seen
from service.tuning.window import BEST, LATEST, Window
from studies.trial import TrialState as Ours
from tests.service.world import spec

SHOWN = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
TPE = {"kind": "tpe", "seed": 3, "startup_trials": 5}


def trial(number: int, draw: random.Random) -> FrozenTrial:
    """A trial that ended in some way, with equal values among them, or that goes on."""
    state = draw.choice([*TrialState, TrialState.COMPLETE, TrialState.PRUNED])
    value = draw.choice([1.0, 2.0, draw.random()])
    curve = {draw.randint(1, 3): value} if draw.random() < 0.8 else {}
    complete = state is TrialState.COMPLETE
    made = create_trial(
        state=TrialState.FAIL if state is TrialState.WAITING else state,
        value=value if complete else None,
        intermediate_values={} if complete else curve,
    )
    made.number = number
    return made


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_it_holds_what_optuna_takes_for_the_best_and_the_latest(seed, direction) -> None:
    draw, known = random.Random(seed), {}
    seen = Window(direction)
    for _ in range(3_000):  # trials come in any order, and some go on after they had ended
        number = draw.randrange(2_000)
        known[number] = trial(number, draw)
        seen.put(known[number])
    there = [known[number] for number in sorted(known) if known[number].state in SHOWN]
    ended = [t.number for t in there if t.state is not TrialState.RUNNING]
    assert default_gamma(len(ended)) == BEST
    below, _ = _split_trials(create_study(direction=direction), there, BEST)
    best = {t.number for t in below}
    others = [number for number in ended if number not in best]
    live = [t.number for t in there if t.state is TrialState.RUNNING]
    assert seen.numbers() == sorted([*best, *others[-LATEST:], *live])


def test_while_there_are_few_all_are_shown() -> None:
    seen, draw = Window("minimize"), random.Random(1)
    trials = [trial(number, draw) for number in range(BEST + LATEST)]
    for one in trials:
        seen.put(one)
    assert seen.numbers() == [t.number for t in trials if t.state in SHOWN]


def test_a_long_study_is_shown_a_part(monkeypatch) -> None:
    """What it is asked for is what a study of only these trials would be."""
    monkeypatch.setattr(window, "LATEST", 10)
    draw, mirror, part = random.Random(1), Mirror(spec(sampler=TPE)), Mirror(spec(sampler=TPE))
    rows = [
        Seen(n, Ours.COMPLETE, {"learning_rate": 10 ** draw.uniform(-4, -1)}, 30, draw.random())
        for n in range(60)
    ]
    mirror.take(rows, 1)
    best = sorted(rows, key=lambda row: row.value)[:BEST]
    others = [row for row in rows if row not in best][-10:]
    part.take([row for row in rows if row in best or row in others], 1)
    assert mirror.ask(60).params == part.ask(60).params
    assert mirror.ask(60).params != Mirror(spec(sampler=TPE)).ask(60).params
