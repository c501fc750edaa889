"""What a search space yields: values drawn at random, before a study is made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from service.tuning.mirror import Mirror
from studies.space import CategoricalParam, FloatParam, IntParam, Param
from studies.spec import StudySpec

DRAWS: Final = 200  # configurations; 50 ms, measured
BINS: Final = 12  # of a range


def draw(spec: StudySpec) -> list[dict[str, Any]]:
    """Returns configurations that a random sampler would try, the same ones each time."""
    sampler = spec.sampler.model_copy(update={"kind": "random"})
    mirror = Mirror(spec.model_copy(update={"sampler": sampler}))
    return [mirror.blind(number).params for number in range(DRAWS)]


def histogram(param: Param, drawn: Sequence[dict[str, Any]]) -> list[tuple[str, int]]:
    """Returns (value or range, how often it was drawn), even on the knob's own scale."""
    values = [params[param.name] for params in drawn if param.name in params]
    if isinstance(param, CategoricalParam):
        return [(str(choice), values.count(choice)) for choice in param.choices]
    assert isinstance(param, FloatParam | IntParam)  # noqa: S101 - the only other kinds
    scale, back = (math.log, math.exp) if param.log else (float, float)
    low, high = scale(param.low), scale(param.high)
    counts = [0] * BINS
    for value in values:
        counts[min(int(BINS * (scale(value) - low) / (high - low)), BINS - 1)] += 1
    ends = [back(low + (high - low) * i / BINS) for i in range(BINS + 1)]
    return [(f"{ends[i]:.3g} to {ends[i + 1]:.3g}", counts[i]) for i in range(BINS)]
