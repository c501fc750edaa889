"""Our search space in Optuna's terms."""

from __future__ import annotations

from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import Trial

from studies.space import CategoricalParam, FloatParam, IntParam, Param


def distribution(param: Param) -> BaseDistribution:
    """Returns Optuna's distribution of a parameter."""
    match param:
        case FloatParam():
            return FloatDistribution(param.low, param.high, log=param.log, step=param.step)
        case IntParam():
            return IntDistribution(param.low, param.high, log=param.log, step=param.step)
        case CategoricalParam():
            return CategoricalDistribution(param.choices)
    raise TypeError(f"not a parameter: {param!r}")


def suggest(trial: Trial, param: Param) -> Any:
    """Returns the value that the trial's sampler proposes for a parameter."""
    match param:
        case FloatParam():
            return trial.suggest_float(
                param.name, param.low, param.high, log=param.log, step=param.step
            )
        case IntParam():
            return trial.suggest_int(
                param.name, param.low, param.high, log=param.log, step=param.step
            )
        case CategoricalParam():
            return trial.suggest_categorical(param.name, param.choices)
    raise TypeError(f"not a parameter: {param!r}")
