"""Schedulers: which trials are ended early. Pure functions of visible rows; no clock, no state.

Optuna's pruners are not used: asked twice about one report they may answer twice differently,
and a retried report must get the answer it got before. Tests hold these against Optuna's, and
promotion against a simulation of its own, on recorded histories.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from studies.parts import Scheduler
from studies.trial import Decision


@dataclass(frozen=True)
class Judged:
    """What a scheduler sees when a trial reports; every value is to be minimised.

    `others` are the other trials' values at this step: of all trials for asha, of COMPLETE ones
    for median.
    """

    step: int
    value: float
    own: Sequence[float]  # this trial's values so far, this one included
    others: Sequence[float]
    complete: int  # COMPLETE trials in the study


def judged_at(scheduler: Scheduler, step: int, evaluate_every: int, max_step: int) -> bool:
    """True when the scheduler looks at a report of this step at all."""
    if scheduler.kind == "none" or step >= max_step or step < scheduler.min_steps:
        return False
    if scheduler.kind == "median":
        return True
    return step in rung_steps(scheduler, evaluate_every, max_step)


def rung_steps(scheduler: Scheduler, evaluate_every: int, max_step: int) -> list[int]:
    """Returns asha's rungs: min_steps times powers of the factor, at the next evaluation [steps].

    Source: Li et al. 2018, arXiv:1810.05934, with no early-stopping rate.
    """
    rungs, rung = [], scheduler.min_steps
    while (step := math.ceil(rung / evaluate_every) * evaluate_every) < max_step:
        rungs.append(step)
        rung *= scheduler.reduction_factor
    return rungs


def decide(scheduler: Scheduler, judged: Judged) -> Decision:
    """Returns continue, pause or stop for a report at which `judged_at` is true."""
    if scheduler.promotes:
        return Decision.CONTINUE if asha_promotes(scheduler, judged) else Decision.PAUSE
    keep = asha_keeps if scheduler.kind == "asha" else median_keeps
    return Decision.CONTINUE if keep(scheduler, judged) else Decision.STOP


def asha_keeps(scheduler: Scheduler, judged: Judged) -> bool:
    """True when the value is in the best 1/factor of all seen at this rung (at least the best).

    Source: Optuna 5, SuccessiveHalvingPruner (the stopping form of asha).
    """
    if math.isnan(judged.value):
        return False
    seen = sorted(v for v in [*judged.others, judged.value] if not math.isnan(v))
    kept = max(len(seen) // scheduler.reduction_factor, 1)
    return judged.value <= seen[kept - 1]


def asha_promotes(scheduler: Scheduler, judged: Judged) -> bool:
    """True when a trial that reaches a rung would be promoted from it at once.

    Unlike in the stopping form the first to come is not among the best of one.
    """
    better = sum(value < judged.value for value in judged.others)
    return math.isfinite(judged.value) and in_top(scheduler, len(judged.others) + 1, better)


def in_top(scheduler: Scheduler, reached: int, better: int) -> bool:
    """True for the best 1/factor, rounded down, of the trials that reached a rung.

    Source: arXiv:1810.05934, Algorithm 2 (promotable).

    Args:
        scheduler: for its factor.
        reached: trials that have reported at the rung, this one included, NaN or not.
        better: those of them with a better value.
    """
    return better < reached // scheduler.reduction_factor


def median_keeps(scheduler: Scheduler, judged: Judged) -> bool:
    """True unless the trial's best value so far is worse than the median of COMPLETE trials here.

    Source: Golovin et al. 2017 (Vizier); Optuna 5, MedianPruner.
    """
    if judged.complete == 0 or judged.complete < scheduler.startup_trials:
        return True
    finite = [value for value in judged.own if not math.isnan(value)]
    if not finite:
        return False
    others = [value for value in judged.others if not math.isnan(value)]
    return not others or min(finite) <= statistics.median(others)
