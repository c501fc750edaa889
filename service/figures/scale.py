"""Where a value stands between the ends of what is searched, and the value that stands there."""

from __future__ import annotations

import math

from studies.space import CategoricalParam, FloatParam, IntParam, Param, Scalar


def place_of(param: Param, value: Scalar) -> float:
    """Returns where the value stands between the ends, on the knob's own scale [0, 1]."""
    if isinstance(param, CategoricalParam):
        return param.choices.index(value) / max(len(param.choices) - 1, 1)
    assert isinstance(param, FloatParam | IntParam)  # noqa: S101 - the only other kinds
    low, high, at = float(param.low), float(param.high), float(value)
    if param.log:
        low, high, at = math.log(low), math.log(high), math.log(at)
    return (at - low) / (high - low) if high > low else 0.5


def value_at(param: FloatParam | IntParam, place: float) -> float:
    """Returns the value that stands there."""
    low, high = float(param.low), float(param.high)
    return low * (high / low) ** place if param.log else low + (high - low) * place
