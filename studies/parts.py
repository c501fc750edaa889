"""The parts of a study beside its recipe and its space: objective, sampler, scheduler, budget."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_GIB: Final = 2**30  # bytes
_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


def _seconds(value: Any) -> Any:
    """Returns a duration in seconds; text like 90s, 10m or 1h30m is understood."""
    if not isinstance(value, str) or re.fullmatch(r"[0-9.]+", value):
        return value
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)([smhd])", value)
    if not parts or "".join(n + u for n, u in parts) != value:
        raise ValueError(f"{value!r} is not a duration; write 90s, 10m, 1h30m or 2d")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


Duration = Annotated[float, BeforeValidator(_seconds), Field(gt=0, le=10 * 365 * 86_400)]


class Part(BaseModel):
    """A frozen group of fields; an unknown name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Objective(Part):
    """What is tuned for."""

    metric: Literal[
        "validation_loss", "bits_per_byte", "perplexity", "train_loss", "tokens_per_second"
    ] = Field("validation_loss", description="a reported metric, read at the trial's final step")
    direction: Literal["minimize", "maximize"] = "minimize"


class Sampler(Part):
    """How the next configuration is chosen (Optuna's samplers)."""

    kind: Literal["random", "tpe", "qmc", "grid"] = "tpe"
    seed: int = Field(0, ge=0, lt=2**63, description="the study's seed; trials' seeds follow it")
    startup_trials: int = Field(10, ge=1, le=10_000, description="random trials first (tpe)")
    order: Literal["given", "ascending", "descending", "random"] = Field(
        "given", description="order of the points (grid); descending tries the largest first"
    )


class Scheduler(Part):
    """Which trials are ended early."""

    kind: Literal["none", "median", "asha"] = "none"
    mode: Literal["stop", "promote"] = Field(
        "stop", description="trials not among the best are stopped, or wait to be promoted (asha)"
    )
    min_steps: int = Field(100, ge=1, description="no trial is judged before this step [steps]")
    reduction_factor: int = Field(
        3, ge=2, le=100, description="one in this many is promoted at a rung (asha)"
    )
    startup_trials: int = Field(
        5, ge=0, le=10_000, description="trials with a value before any is judged (median)"
    )

    @property
    def promotes(self) -> bool:
        """True when trials are paused at rungs and the best of them go on."""
        return self.kind == "asha" and self.mode == "promote"


class Budget(Part):
    """When the study ends: whichever comes first."""

    trials: int = Field(16, ge=1, le=1_000_000, description="configurations tried")
    wall_time: Duration | None = Field(None, description="time spent RUNNING, as 90s, 10m or 2h")


class Resources(Part):
    """What a worker must have for a trial of the study, and how many may train its trials."""

    workers: int | None = Field(
        None, ge=1, le=100_000, description="that train its trials at once, at most"
    )
    devices: int = Field(1, ge=1, le=64, description="that train a trial together (worker's)")
    memory_gib: float | None = Field(None, gt=0, le=10_000, description="of each device [GiB]")
    native: bool = Field(
        False, description="its devices have every precision themselves: none is emulated"
    )

    def lacking(self, said: Mapping[str, Any], precisions: Iterable[str]) -> str | None:
        """Returns what a worker lacks to train a trial, in words; None: nothing.

        Args:
            said: what it says of itself: devices, memory [bytes of each], precisions that it has
                natively; silence is one device of which nothing is known.
            precisions: those that a trial may be trained in.
        """
        if _number(said.get("devices", 1)) < self.devices:
            return f"{self.devices} devices"
        if self.memory_gib is not None and _number(said.get("memory")) < self.memory_gib * _GIB:
            return f"{self.memory_gib:g} GiB of memory on each device"
        known = said.get("precisions")
        missing = sorted(set(precisions) - set(known if isinstance(known, list) else ()))
        return f"native {' and '.join(missing)}" if self.native and missing else None


def _number(said: Any) -> float:
    """Returns what a worker said; 0 where it is no number."""
    return float(said) if isinstance(said, int | float) else 0.0
