"""What a study has found, and how sure that is: trials -> plain numbers for its report."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from service.figures.data import StudyData, TrialData
from studies.space import Param, Scalar
from studies.trial import Outcome, TrialState

TOP: Final = 10  # trials that a report names; assumption: more are not read
_TENTH: Final = 10  # the top is a tenth of the complete trials, but no fewer than _FEWEST
_FEWEST: Final = 3
# Ends that a worker or its machine brought about, not the trial's configuration.
LOST: Final = (Outcome.LOST, Outcome.HUNG, Outcome.ERROR, Outcome.INCOMPATIBLE)
_APART: Final = 2.0 * math.sqrt(2.0)  # standard errors of a difference of two runs; 95 % if normal


@dataclass(frozen=True)
class Repeated:
    """One configuration that was trained more than once, each time from another seed.

    Attributes:
        params: its searched values.
        numbers: of its complete trials.
        mean: of their values.
        deviation: their sample standard deviation.
    """

    params: Mapping[str, Scalar]
    numbers: tuple[int, ...]
    mean: float
    deviation: float


@dataclass(frozen=True)
class Range:
    """One knob: the share of the differences it explains, its best value, and the top trials'.

    Attributes:
        name: the knob's.
        importance: see StudyData; None: unknown yet.
        best: its value in the best trial; None where it was off.
        low: the least of the top trials; None for a choice.
        high: the greatest of them; None for a choice.
        taken: the top trials' choices with their counts, the most frequent first.
    """

    name: str
    importance: float | None
    best: Scalar | None
    low: float | None = None
    high: float | None = None
    taken: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Findings:
    """What the complete trials of a study say.

    Attributes:
        complete: how many there are.
        top: the best of them, the best first: a tenth of all, at least 3 and at most TOP.
        ranges: the knobs, those that matter most first.
        repeated: the configurations that were trained more than once, the best mean first.
        noise: standard deviation between seeds, pooled over `repeated`; None without any.
        level: top trials that this noise cannot tell from the best one; None where it is unknown.
    """

    complete: int
    top: Sequence[TrialData]
    ranges: Sequence[Range]
    repeated: Sequence[Repeated]
    noise: float | None
    level: int | None

    @property
    def spread(self) -> float:
        """How far the values of the top trials lie apart."""
        scores = [_score(trial) for trial in self.top]
        return max(scores) - min(scores) if scores else 0.0


def findings(study: StudyData, *, seeded: bool) -> Findings:
    """Returns what the study's complete trials say.

    Args:
        study: the study.
        seeded: trials have seeds of their own; else the same configuration again is the same run,
            and says nothing of noise.
    """
    sign = 1.0 if study.direction == "minimize" else -1.0
    complete = [t for t in study.trials if t.state is TrialState.COMPLETE and t.score is not None]
    complete.sort(key=lambda trial: (sign * _score(trial), trial.number))
    top = complete[: min(TOP, max(_FEWEST, len(complete) // _TENTH))]
    repeated = sorted(_repeated(complete) if seeded else [], key=lambda one: sign * one.mean)
    noise = _pooled(repeated)
    level = None
    if noise is not None and top:
        apart = [abs(_score(trial) - _score(top[0])) for trial in top]
        level = sum(distance <= _APART * noise for distance in apart) - 1
    ranges = [_range(param, study, top) for param in study.space]
    ranges.sort(key=lambda one: -(one.importance or 0.0))
    return Findings(len(complete), top, ranges, repeated, noise, level)


def _score(trial: TrialData) -> float:
    assert trial.score is not None  # noqa: S101 - only such are ranked
    return trial.score


def _repeated(complete: Sequence[TrialData]) -> list[Repeated]:
    """Returns what was repeated: a searched seed is no part of it, and trials of one are one."""
    groups: dict[tuple[tuple[str, Scalar], ...], dict[Scalar, TrialData]] = {}
    for trial in complete:
        params = {name: value for name, value in trial.params.items() if name != "seed"}
        seed = trial.params.get("seed", f"of trial {trial.number}")
        groups.setdefault(tuple(sorted(params.items())), {}).setdefault(seed, trial)
    return [
        Repeated(
            dict(params),
            tuple(sorted(trial.number for trial in own.values())),
            statistics.fmean(map(_score, own.values())),
            statistics.stdev(map(_score, own.values())),
        )
        for params, own in groups.items()
        if len(own) > 1
    ]


def _pooled(repeated: Sequence[Repeated]) -> float | None:
    freedom = sum(len(one.numbers) - 1 for one in repeated)
    if not freedom:
        return None
    squares = sum((len(one.numbers) - 1) * one.deviation**2 for one in repeated)
    return math.sqrt(squares / freedom)


def _range(param: Param, study: StudyData, top: Sequence[TrialData]) -> Range:
    name = param.name
    importance = study.importances.get(name)
    best = top[0].params.get(name) if top else None
    values = [trial.params[name] for trial in top if name in trial.params]
    numbers = [float(v) for v in values if not isinstance(v, str | bool)]
    if values and len(numbers) == len(values):
        return Range(name, importance, best, min(numbers), max(numbers))
    counts = {str(value): values.count(value) for value in values}
    taken = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return Range(name, importance, best, taken=tuple(taken))


@dataclass(frozen=True)
class Spent:
    """Attempts that had one kind of device and one outcome.

    Attributes:
        device: cpu, or the GPU's name.
        outcome: see studies/trial.py; None: still live.
        attempts: how many.
        seconds: from grant to end, together [s].
    """

    device: str
    outcome: str | None
    attempts: int
    seconds: float


@dataclass(frozen=True)
class Cost:
    """What a study has cost so far; one attempt has one device.

    Attributes:
        spent: by device and outcome.
        tokens: trained on, of what was kept: steps that were lost and trained again count once.
        training: time within training, of what was kept [s].
    """

    spent: Sequence[Spent]
    tokens: int
    training: float

    @property
    def devices(self) -> dict[str, float]:
        """Seconds held by device, the most used first."""
        held: dict[str, float] = {}
        for one in self.spent:
            held[one.device] = held.get(one.device, 0.0) + one.seconds
        return dict(sorted(held.items(), key=lambda item: -item[1]))

    @property
    def lost(self) -> dict[str, tuple[int, float]]:
        """Attempts that ended in vain, by outcome: how many, and their seconds."""
        lost: dict[str, tuple[int, float]] = {}
        for one in self.spent:
            if one.outcome in LOST:
                count, seconds = lost.get(one.outcome, (0, 0.0))
                lost[one.outcome] = count + one.attempts, seconds + one.seconds
        return lost
