"""What figures are drawn from, and how much of it: no database, no plotly."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Final, Literal, TypeVar

from studies.space import Scalar, SearchSpace
from studies.trial import TrialState

MAX_TRIALS: Final = 1_000  # trials in one figure; assumption: more cannot be told apart
MAX_POINTS: Final = 20_000  # points of all curves of one figure; SVG stays fluent
MIN_CURVE_POINTS: Final = 8  # a curve keeps its shape with these
ItemT = TypeVar("ItemT")
Point = tuple[int, float]  # (step or trial number, value)
Spent = tuple[int, float]  # (tokens, time [s])


@dataclass(frozen=True, slots=True)
class TrialData:
    """One trial, as figures see it.

    Attributes:
        number: its number in the study, from 0.
        state: where it stands.
        params: sampled values by knob name; a knob whose condition is off is missing.
        value: the objective; None where there is none. May be not finite.
        curve: (step, objective metric) of the visible reports, steps rising; of a large study's
            trials many have none (figures/kept.py).
        spent: (tokens, time [s]) that training had taken at each point of the curve.
        step: its last visible step.
        max_step: the step at which it is complete.
        diverged: it FAILED because its loss was not finite.
        started: when it was first granted.
        ended: when it became terminal.
    """

    number: int
    state: TrialState
    params: Mapping[str, Scalar] = field(default_factory=dict)
    value: float | None = None
    curve: tuple[Point, ...] = ()
    spent: tuple[Spent, ...] = ()
    step: int = 0
    max_step: int = 0
    diverged: bool = False
    started: datetime | None = None
    ended: datetime | None = None

    @property
    def score(self) -> float | None:
        """The value, or the last finite one of the curve; None without any."""
        if self.value is not None and math.isfinite(self.value):
            return self.value
        return next((value for _, value in reversed(self.curve) if math.isfinite(value)), None)


@dataclass(frozen=True, slots=True)
class AttemptData:
    """One attempt, as figures see it; `outcome` is None while it is live."""

    number: int
    attempt: int
    worker: str
    started: datetime
    ended: datetime | None
    outcome: str | None
    start_step: int


@dataclass(frozen=True, slots=True)
class LoadData:
    """What an attempt made of its device, as its last report says.

    Attributes:
        number: of its trial.
        device: cpu, or the GPU's name.
        started: when the attempt began.
        tokens_per_second: trained; None where it is not reported.
        memory: the most in use at once [bytes]; None where it is not reported.
    """

    number: int
    device: str
    started: datetime
    tokens_per_second: float | None
    memory: float | None


@dataclass(frozen=True)
class StudyData:
    """One study, as figures see it.

    Attributes:
        trials: by number, rising.
        space: the searched knobs.
        metric: name of the objective.
        direction: whether less or more of it is better.
        baseline: the metric of a model that learnt nothing but token counts; None: unknown.
        rungs: steps at which the scheduler decides.
        attempts: the latest attempts; empty where a figure does not need them.
        loads: of the latest attempts that reported; empty where a figure does not need them.
        importances: part of the variance that each knob explains [0, 1]; empty: unknown yet.
    """

    trials: Sequence[TrialData]
    space: SearchSpace = field(default_factory=SearchSpace)
    metric: str = "validation_loss"
    direction: Literal["minimize", "maximize"] = "minimize"
    baseline: float | None = None
    rungs: Sequence[int] = ()
    attempts: Sequence[AttemptData] = ()
    loads: Sequence[LoadData] = ()
    importances: Mapping[str, float] = field(default_factory=dict)

    def better(self, one: float, other: float) -> bool:
        """True when `one` is strictly the better value."""
        return one < other if self.direction == "minimize" else one > other

    @cached_property
    def best(self) -> TrialData | None:
        """The complete trial with the best finite value, the earliest of equals."""
        found: tuple[float, TrialData] | None = None
        for trial in self.trials:
            if trial.state is not TrialState.COMPLETE or trial.score is None:
                continue
            if found is None or self.better(trial.score, found[0]):
                found = (trial.score, trial)
        return found[1] if found else None


def finite(value: float | None) -> float | None:
    """Returns the value, or None where JSON and an axis could not carry it."""
    return value if value is not None and math.isfinite(value) else None


def thin(items: Sequence[ItemT], limit: int, keep: Collection[int] = ()) -> list[ItemT]:
    """Returns at most `limit` of the items in order: those at `keep`, the rest evenly spread.

    The same items give the same answer. `keep` wins over the rest, its own last ones first.
    """
    if len(items) <= limit:
        return list(items)
    kept = set(sorted(keep)[-limit:])
    rest = [index for index in range(len(items)) if index not in kept]
    room = limit - len(kept)
    kept.update(rest[(i * len(rest)) // room] for i in range(room))
    return [items[index] for index in sorted(kept)]


def shown(study: StudyData, wanted: Callable[[TrialData], bool]) -> list[TrialData]:
    """Returns the wanted trials, at most MAX_TRIALS, always with those that set a record."""
    trials = [trial for trial in study.trials if wanted(trial)]
    records: list[int] = []
    best: float | None = None
    for index, trial in enumerate(trials):
        score = trial.score if trial.state is TrialState.COMPLETE else None
        if score is not None and (best is None or study.better(score, best)):
            best = score
            records.append(index)
    return thin(trials, MAX_TRIALS, records)


def window(
    values: Iterable[float], direction: Literal["minimize", "maximize"]
) -> tuple[float, float] | None:
    """Returns the axis range that shows the good values well and lets far bad ones lie outside.

    The bad end is cut at three interquartile ranges past the quartile (Tukey's far-out fence),
    so one diverged trial does not flatten the rest. None without values.
    """
    ordered = sorted(value for value in values if math.isfinite(value))
    if not ordered:
        return None
    low, high = ordered[0], ordered[-1]
    first, third = ordered[len(ordered) // 4], ordered[(3 * len(ordered)) // 4]
    fence = 3.0 * (third - first)
    if fence > 0 and direction == "minimize":
        high = min(high, third + fence)
    elif fence > 0:
        low = max(low, first - fence)
    margin = 0.08 * (high - low) or 0.08 * abs(high) or 0.08
    return low - margin, high + margin
