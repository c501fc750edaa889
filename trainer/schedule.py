"""The learning rate of each step, as a part of the recipe's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

from studies.recipe import TrainRecipe


def schedule_factor(step: int, train: TrainRecipe) -> float:
    """Returns the learning rate of a step as a part of the recipe's.

    Rises linearly through the warm-up, whose last step has factor 1; then the schedule runs over
    the steps that are left.

    Args:
        step: 0 for the first update [steps].
        train: `schedule`, its knobs, `warmup` and `steps`.
    """
    warm = _warm_steps(train)
    if step < warm:
        return (step + 1) / warm
    return _SCHEDULES[train.schedule](step - warm, train.steps - warm, train)


def _constant(step: int, steps: int, train: TrainRecipe) -> float:
    return 1.0


def _linear(step: int, steps: int, train: TrainRecipe) -> float:
    """A line from 1 to final_fraction."""
    return 1 - (1 - train.final_fraction) * step / steps


def _cosine(step: int, steps: int, train: TrainRecipe) -> float:
    """Half a cosine from 1 to final_fraction (SGDR, arXiv:1608.03983, equation 5)."""
    height = (1 + math.cos(math.pi * step / steps)) / 2
    return train.final_fraction + (1 - train.final_fraction) * height


def _ladder(step: int, steps: int, train: TrainRecipe) -> float:
    """Stairs down: learning rates from large to small within one run."""
    stair = max(1, round(train.ladder_every * train.steps))
    return train.ladder_factor ** (step // stair)


def _wsd(step: int, steps: int, train: TrainRecipe) -> float:
    """Flat, then 1 - sqrt down to final_fraction (Haegele et al., arXiv:2405.18392, section 3)."""
    cooldown = steps - (trunk_steps(train) - _warm_steps(train))
    into = step - (steps - cooldown)
    if into <= 0:
        return 1.0
    return 1 - (1 - train.final_fraction) * math.sqrt(into / cooldown)


def _warm_steps(train: TrainRecipe) -> int:
    return round(train.warmup * train.steps)


def trunk_steps(train: TrainRecipe) -> int:
    """Returns how many first steps do not depend on where the run ends [steps]; 0 but for wsd.

    Runs that differ in `steps`, `cooldown` and `final_fraction` only, and warm up over as many
    steps, are one run so far: a cool-down may branch from any of these states.
    """
    if train.schedule != "wsd":
        return 0
    return max(_warm_steps(train), train.steps - round(train.cooldown * train.steps))


_SCHEDULES: Final[Mapping[str, Callable[[int, int, TrainRecipe], float]]] = {
    "constant": _constant,
    "linear": _linear,
    "cosine": _cosine,
    "ladder": _ladder,
    "wsd": _wsd,
}
