"""The processes that train one trial together: each computes its share of every batch.

`torchrun` starts them and says who they are; without it a run is alone. Rank 0 speaks for all, and
what it hears and measures is told to all at a step's end, so that all take the same way.

Shapes: B sequences, b sequences of a rank, T tokens.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any, Final, TypeVar

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from studies.trial import Outcome
from trainer.device import make_current

ValueT = TypeVar("ValueT")
_SILENCE: Final = timedelta(minutes=10)  # then a rank that hears nothing ends with an error
_ENDINGS: Final = (None, *Outcome)


class Ranks:
    """A run that is alone."""

    rank, world = 0, 1

    def share(self, x_BT: Tensor) -> Tensor:
        """Returns the rows that this rank computes: x_bT."""
        return x_BT

    def wrap(self, model: nn.Module) -> Any:
        """Returns the model whose backward pass leaves the mean of all ranks' gradients."""
        return model

    def holding_back(self, model: Any, more: bool) -> AbstractContextManager[None]:
        """Around a part's forward and backward pass: where `more` follow, ranks do not meet yet."""
        return nullcontext()

    def any(self, here: bool) -> bool:
        """Returns whether it is so on any rank: every rank asks."""
        return here

    def total_(self, x: Tensor) -> Tensor:
        """Returns the sum over the ranks, in place."""
        return x

    def agree(self, ending: Outcome | None) -> Outcome | None:
        """Returns what rank 0 was told: every rank asks at every step."""
        return ending

    def agree_on(self, value: float) -> float:
        """Returns rank 0's value."""
        return value

    @property
    def purpose(self) -> str:
        """What this rank's dropout is drawn for: masks differ between ranks."""
        return "dropout"


class Together(Ranks):
    """One of several, over NCCL on GPUs and gloo on CPUs; decisions go over gloo in any case."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if not torch.distributed.is_initialized():
            backend = "nccl" if device.type == "cuda" else "gloo"
            torch.distributed.init_process_group(backend, timeout=_SILENCE)
        self.rank, self.world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self._told = torch.distributed.new_group(backend="gloo", timeout=_SILENCE)

    def share(self, x_BT: Tensor) -> Tensor:
        """Returns the rows that this rank computes: x_bT."""
        return x_BT.tensor_split(self.world)[self.rank]

    def wrap(self, model: nn.Module) -> Any:
        """Returns the model in DistributedDataParallel."""
        ids = [self._device] if self._device.type == "cuda" else None
        # Buffers are tables of angles and masks, equal on every rank.
        return DistributedDataParallel(model, device_ids=ids, broadcast_buffers=False)

    def holding_back(self, model: Any, more: bool) -> AbstractContextManager[None]:
        """Keeps the gradient here, to be summed over the ranks once, with the last part's."""
        if not (more and isinstance(model, DistributedDataParallel)):
            return nullcontext()
        held: AbstractContextManager[None] = model.no_sync()
        return held

    def any(self, here: bool) -> bool:
        """Returns whether it is so on any rank."""
        told = torch.tensor(float(here))
        torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX, group=self._told)
        return bool(told)

    def total_(self, x: Tensor) -> Tensor:
        """Returns the sum over the ranks, in place."""
        torch.distributed.all_reduce(x)
        return x

    def agree(self, ending: Outcome | None) -> Outcome | None:
        """Returns what rank 0 was told."""
        return _ENDINGS[int(self.agree_on(float(_ENDINGS.index(ending))))]

    def agree_on(self, value: float) -> float:
        """Returns rank 0's value, exactly."""
        told = torch.tensor(value, dtype=torch.float64)
        torch.distributed.broadcast(told, src=0, group=self._told)
        return float(told)

    @property
    def purpose(self) -> str:
        """What this rank's dropout is drawn for."""
        return f"dropout of rank {self.rank}"


def build_ranks(device: torch.device) -> Ranks:
    """Returns who trains: as torchrun's environment says, else this process alone.

    From here on the device is this thread's own.
    """
    make_current(device)
    return Together(device) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else Ranks()


def leave() -> None:
    """Ends this process's part in a group; without one it does nothing."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
