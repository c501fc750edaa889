"""On how many devices a trial of a study can be trained: its batches are shared among them."""

from __future__ import annotations

from typing import Any

from studies.recipe import TrainRecipe
from studies.space import CategoricalParam, FloatParam, IntParam, SearchSpace


def most_devices(train: TrainRecipe, space: SearchSpace) -> tuple[int, str]:
    """Returns how many devices any trial can use at most, and the field that says so."""
    if "streams" in _values("windows", train.windows, space):
        return 1, "windows: streams"
    least = int(min(_values("batch_size", train.batch_size, space)))
    return least, f"batch_size: {least}"


def _values(name: str, fixed: Any, space: SearchSpace) -> list[Any]:
    """Returns a knob's choices, the ends of its range, or its fixed value."""
    for param in space:
        if param.name == name:
            if isinstance(param, CategoricalParam):
                return list(param.choices)
            if isinstance(param, FloatParam | IntParam):
                return [param.low, param.high]
    return [fixed]
