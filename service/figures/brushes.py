"""Brushes: parts of knobs' axes that a reader has marked; only trials within all are shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from service.figures.data import StudyData, TrialData
from service.figures.scale import place_of
from studies.space import Param


def within(study: StudyData, brushes: Sequence[str]) -> Sequence[TrialData]:
    """Returns the trials that lie in all brushes, by number.

    Args:
        study: the study.
        brushes: KNOB:LOW:HIGH, parts of a knob's axis [0, 1].
    """
    found = study.trials
    for param, low, high in _known(study, brushes):
        found = [t for t in found if _holds(param, t.params.get(param.name), low, high)]
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


def _known(study: StudyData, brushes: Sequence[str]) -> Iterator[tuple[Param, float, float]]:
    """Yields the knobs that are brushed, with the part of their axis; others are passed over."""
    known = {param.name: param for param in study.space}
    for said in brushes:
        name, low, high = said.split(":")
        if name in known:
            yield known[name], float(low), float(high)


def _holds(param: Param, value: Any, low: float, high: float) -> bool:
    """True for a value in that part of its knob's axis."""
    return value is not None and param.holds(value) and low <= place_of(param, value) <= high
