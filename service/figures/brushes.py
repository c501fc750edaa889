"""Brushes: parts of axes that a reader has marked; only trials within all are shown."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from service.figures.data import StudyData, TrialData, finite
from studies.errors import InvalidInput
from studies.space import CategoricalParam, Param


def within(study: StudyData, brushes: Sequence[str]) -> Sequence[TrialData]:
    """Returns the trials that lie in all brushes, by number; unknown names are passed over.

    Raises:
        InvalidInput: an end of a number is no number.
    """
    known = {param.name: param for param in study.space}
    found = study.trials
    for name, *ends in (said.split(":") for said in brushes):
        low, high = map(unquote, ends)
        if name in known:
            holds = _test(known[name], low, high)
            found = [t for t in found if name in t.params and holds(t.params[name])]
        elif name == study.metric:
            holds = _between(low, high)
            found = [t for t in found if finite(t.value) is not None and holds(t.value)]
    return found


def brushed(study: StudyData, brushes: Sequence[str]) -> StudyData:
    """Returns the study with nothing but those trials, and what belongs to them."""
    if not brushes:
        return study
    trials = within(study, brushes)
    numbers = {trial.number for trial in trials}
    return replace(
        study,
        trials=trials,
        attempts=[attempt for attempt in study.attempts if attempt.number in numbers],
        loads=[load for load in study.loads if load.number in numbers],
    )


def _test(param: Param, low: str, high: str) -> Callable[[Any], bool]:
    """Returns what says whether a value lies between the ends."""
    if not isinstance(param, CategoricalParam):
        return _between(low, high)
    if not low and not high:
        return lambda value: True
    texts = [str(choice) for choice in param.choices]
    if not {low, high} <= {"", *texts}:  # the space was narrowed since
        return lambda value: str(value) in (low, high)
    first = texts.index(low) if low else 0
    last = texts.index(high) if high else len(texts) - 1
    wanted = param.choices[first : last + 1]
    return lambda value: value in wanted  # 1 is 1.0


def _between(low: str, high: str) -> Callable[[Any], bool]:
    least, most = _number(low, -math.inf), _number(high, math.inf)
    return lambda value: least <= float(value) <= most


def _number(said: str, otherwise: float) -> float:
    try:
        return float(said) if said else otherwise
    except ValueError:
        raise InvalidInput.of("brush", f"{said!r} is no number", "say NAME:FROM:TO") from None
