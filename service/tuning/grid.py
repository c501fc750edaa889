"""Grid search in an order one can choose: learning rates from large to small, as textbooks say."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Mapping
from typing import Any

from studies.parts import Sampler
from studies.space import CategoricalParam, FloatParam, IntParam, Param, SearchSpace


def points(space: SearchSpace, sampler: Sampler) -> list[dict[str, Any]]:
    """Returns the grid's distinct configurations in the sampler's order.

    The first parameter of the study file varies slowest. A parameter whose condition does not
    hold is left out, and configurations that differ in nothing else are one.
    """
    axes = [_ordered(axis(param), sampler.order) for param in space]
    seen: dict[tuple[tuple[str, Any], ...], dict[str, Any]] = {}
    for combination in itertools.product(*axes):
        values = dict(_active(space, combination))
        seen.setdefault(tuple(values.items()), values)
    found = list(seen.values())
    if sampler.order == "random":
        random.Random(sampler.seed).shuffle(found)  # noqa: S311 - an order, not a secret
    return found


def next_point(
    grid: list[dict[str, Any]], tried: Iterator[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """Returns the first configuration not tried yet, or None when the grid is used up."""
    done = {tuple(sorted(params.items(), key=lambda item: item[0])) for params in tried}
    for point in grid:
        if tuple(sorted(point.items(), key=lambda item: item[0])) not in done:
            return point
    return None


def axis(param: Param) -> list[Any]:
    """Returns the grid's values of one parameter, from low to high."""
    if isinstance(param, CategoricalParam):
        return list(param.choices)
    if isinstance(param, IntParam) and param.points is None:
        return list(range(param.low, param.high + 1, param.step))
    if isinstance(param, FloatParam) and param.points is None:
        assert param.step is not None  # noqa: S101 - the study was checked
        count = math.floor((param.high - param.low) / param.step + 1e-9) + 1
        return [param.low + i * param.step for i in range(count)]
    assert isinstance(param, FloatParam | IntParam)  # noqa: S101 - the only kinds left
    assert param.points is not None  # noqa: S101 - the study was checked
    values = _spread(param.low, param.high, param.points, log=param.log)
    if isinstance(param, IntParam):
        return sorted({round(value) for value in values})
    return values


def _spread(low: float, high: float, count: int, *, log: bool) -> list[float]:
    """Returns `count` values from low to high, both exact, even in value or in log value."""
    if log:
        inner = [low * (high / low) ** (i / (count - 1)) for i in range(1, count - 1)]
    else:
        inner = [low + (high - low) * i / (count - 1) for i in range(1, count - 1)]
    return [low, *(float(f"{value:.12g}") for value in inner), high]


def _ordered(values: list[Any], order: str) -> list[Any]:
    numbers = all(isinstance(value, int | float) for value in values)
    if not numbers or order not in ("ascending", "descending"):
        return values
    return sorted(values, reverse=order == "descending")


def _active(space: SearchSpace, combination: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    chosen: dict[str, Any] = {}
    for param, value in zip(space, combination, strict=True):
        if param.active(chosen):
            chosen[param.name] = value
            yield param.name, value
