"""What is measured of the steps between two evaluations."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from studies.errors import Diverged
from trainer.ranks import Ranks


class Meter:
    """Sums over the steps since the last evaluation; kept on the device, read only when asked."""

    def __init__(self, device: torch.device, ranks: Ranks) -> None:
        self._ranks = ranks
        self._sums = torch.zeros(2, dtype=torch.float64, device=device)  # of losses, of norms
        self._steps = self._taken = 0
        self._clock: tuple[int, float] | None = None
        self.before: float | None = None  # the mean loss when there was one to read last

    def start(self) -> None:
        """Starts timing unless it runs: evaluations and checkpoints are not timed."""
        self._clock = self._clock or (self._steps, time.perf_counter())

    def add(self, loss: Tensor, norm: Tensor, taken: bool) -> None:
        """Counts one step; of one that was not taken, as it overflowed, neither loss nor norm."""
        self._steps += 1
        if taken:  # on every rank: the norm is of the whole gradient
            self._sums += torch.stack([loss.detach(), norm])
            self._taken += 1

    def read(self, limit: float) -> tuple[float, float]:
        """Returns the mean loss and gradient norm of the window; waits for device and ranks.

        They are of the steps that were taken. Without any the loss is that of the window before
        (nan where there is none) and the norm nan, and it is no divergence: the loss scaler says
        when it has gone on for too long.

        Raises:
            Diverged: one is not finite, or the loss is over the limit [nats per token].
        """
        self._ranks.total_(self._sums[:1])  # each rank knows its part of the losses, and all norms
        loss_sum, norm_sum = self._sums.tolist()
        self._leave_to_first()
        if not self._taken:
            return math.nan if self.before is None else self.before, math.nan
        loss, norm = loss_sum / self._taken, norm_sum / self._taken
        require_sane("training loss", loss, limit, self.before)
        if not math.isfinite(norm):
            raise Diverged(f"gradient norm {norm} at a training loss of {loss:.4g}")
        self.before = loss
        return loss, norm

    def _leave_to_first(self) -> None:
        """Has rank 0 alone keep the losses' sum, which it saves; the next total counts it once."""
        if self._ranks.rank:
            self._sums[0] = 0.0

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
        counts = {"steps": self._steps, "taken": self._taken}
        return {"sums": self._sums.tolist(), **counts, "before": self.before}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on within a saved window."""
        self._sums.copy_(torch.tensor(state["sums"], dtype=torch.float64))
        self._steps, self._taken = int(state["steps"]), int(state["taken"])
        self.before = state["before"]
        self._leave_to_first()


def require_sane(what: str, loss: float, limit: float, before: float | None = None) -> None:
    """Raises Diverged unless the loss is a number up to the limit [nats per token].

    Args:
        what: whose loss it is.
        loss: the loss.
        limit: the highest that is no divergence.
        before: the loss some steps ago, which tells a spike from one that never came down.
    """
    if not loss <= limit:  # also when it is nan
        past = "from the start" if before is None else f"a spike after {before:.4g}"
        raise Diverged(f"{what} {loss:.4g} is over {limit:.4g} nats per token, {past}")
