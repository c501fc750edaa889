"""What is measured of the steps between two evaluations."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from studies.errors import Diverged


class Meter:
    """Sums over the steps since the last evaluation; kept on the device, read only when asked."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(2, dtype=torch.float64, device=device)  # of losses, of norms
        self._steps = self._taken = 0
        self._clock: tuple[int, float] | None = None

    def start(self) -> None:
        """Starts timing unless it runs: evaluations and checkpoints are not timed."""
        self._clock = self._clock or (self._steps, time.perf_counter())

    def add(self, loss: Tensor, norm: Tensor, taken: bool) -> None:
        """Counts one step; the gradient of one that was not taken has no norm."""
        self._sums += torch.stack([loss.detach(), norm if taken else torch.zeros_like(norm)])
        self._steps += 1
        self._taken += taken

    def read(self, limit: float) -> tuple[float, float]:
        """Returns the mean loss and gradient norm of the window; waits for the device.

        Raises:
            Diverged: one is not finite, or the loss is over the limit [nats per token].
        """
        loss_sum, norm_sum = self._sums.tolist()
        loss, norm = loss_sum / max(1, self._steps), norm_sum / max(1, self._taken)
        require_sane("training loss", loss, limit)
        if not math.isfinite(norm):
            raise Diverged(f"gradient norm {norm}")
        return loss, norm

    def reset(self) -> float:
        """Returns the steps per second and begins a new window."""
        first, began = self._clock or (self._steps, 0.0)
        speed = (self._steps - first) / max(time.perf_counter() - began, 1e-9)
        self._sums.zero_()
        self._steps = self._taken = 0
        self._clock = None
        return speed

    def state(self) -> dict[str, Any]:
        """Returns what `restore` needs, exactly."""
        return {"sums": self._sums.tolist(), "steps": self._steps, "taken": self._taken}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on within a saved window."""
        self._sums.copy_(torch.tensor(state["sums"], dtype=torch.float64))
        self._steps, self._taken = int(state["steps"]), int(state["taken"])


def require_sane(what: str, loss: float, limit: float) -> None:
    """Raises Diverged unless the loss is a number up to the limit [nats per token]."""
    if not loss <= limit:  # also when it is nan
        raise Diverged(f"{what} {loss:.4g} is over {limit:.4g} nats per token")
