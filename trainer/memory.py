"""Whether a run fits in memory, before it is built."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from studies.errors import OutOfMemory
from trainer import device

_COPIES: Final = {"sgd": 3, "adam": 4, "adamw": 4, "muon": 3}  # weight, gradient, and moments
_FP32: Final = 4  # bytes
_GIB: Final = 2**30  # bytes


class _Unfilled(TorchFunctionMode):
    """Inside, nothing is drawn: torch would import its compiler to do so without a device."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Returns the tensor as it is where it was to be filled with random numbers."""
        given = dict(kwargs or {})
        if func.__name__.endswith(("normal_", "uniform_")):
            return args[0] if args else given["tensor"]
        return func(*args, **given)


def require_memory(build: Callable[[], nn.Module], optimizer: str, where: torch.device) -> None:
    """Raises OutOfMemory when not even the parameters and their optimizer fit.

    Linux lets a process allocate more than there is and kills it later; so we ask first.
    """
    with torch.device("meta"), _Unfilled():
        model = build()
    numbers = sum(p.numel() for p in model.parameters()) * _COPIES[optimizer]
    needed, free = numbers * _FP32, device.free_memory_bytes(where)
    if needed > free:
        raise OutOfMemory(
            f"parameters, gradients and optimizer need {needed / _GIB:.1f} GiB,"
            f" {free / _GIB:.1f} GiB are free"
        )
