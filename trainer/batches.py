"""Which windows of the training split a step trains on.

Shapes: N tokens of the split, B sequences, T tokens of a sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

from studies.recipe import TrainRecipe
from trainer.data import draw_seed


class Batches:
    """Windows at random offsets.

    Invariant:
        The batch of a step is a function of (seed, step) only, the same on every device; so a
        resumed run needs no generator state.
    """

    def __init__(self, train_N: Tensor, shape: tuple[int, int], seed: int) -> None:
        self.seed, self.tokens = seed, len(train_N)
        self.batch_size, self.length = shape
        self._train_N = train_N
        self._offsets_T = torch.arange(self.length + 1, device=train_N.device)

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """Returns x_BT and y_BT of a step: y is x one token later."""
        start_B = self.starts(step).to(self._train_N.device, non_blocking=True)
        window_BT = self._train_N[start_B[:, None] + self._offsets_T].long()
        return window_BT[:, :-1], window_BT[:, 1:]

    def starts(self, step: int) -> Tensor:
        """Returns where the windows of a step begin: start_B, on the CPU."""
        generator = torch.Generator().manual_seed(draw_seed(self.seed, step, "batch"))
        return torch.randint(self.tokens - self.length, (self.batch_size,), generator=generator)

    def continues(self, step: int) -> bool:
        """True where each sequence begins where the same row of the step before ended."""
        return False


class Shuffled(Batches):
    """Windows of a fixed grid, each once a pass, in an order drawn anew for each pass."""

    def starts(self, step: int) -> Tensor:
        """Returns start_B; a batch may end one pass and begin the next."""
        windows = (self.tokens - 1) // self.length
        index_B = torch.arange(step * self.batch_size, (step + 1) * self.batch_size)
        pass_B, place_B = index_B // windows, index_B % windows
        window_B = torch.empty_like(index_B)
        for number in pass_B.unique().tolist():
            order_W = _order(windows, draw_seed(self.seed, number, "pass"))
            window_B[pass_B == number] = order_W[place_B[pass_B == number]]
        return window_B * self.length


@lru_cache(maxsize=2)
def _order(windows: int, seed: int) -> Tensor:
    return torch.randperm(windows, generator=torch.Generator().manual_seed(seed))


class Streams(Batches):
    """The split as B contiguous streams side by side, read window after window, pass after pass."""

    def __init__(self, train_N: Tensor, shape: tuple[int, int], seed: int) -> None:
        super().__init__(train_N, shape, seed)
        stream = (self.tokens - 1) // self.batch_size  # [tokens]
        self._windows = stream // self.length
        self._begin_B = torch.arange(self.batch_size) * stream

    def starts(self, step: int) -> Tensor:
        """Returns start_B; what is left of a stream at its end is passed over."""
        return self._begin_B + step % self._windows * self.length

    def continues(self, step: int) -> bool:
        """True but for the first window of a pass."""
        return step % self._windows > 0


_KINDS: Final[Mapping[str, type[Batches]]] = {
    "random": Batches,
    "shuffled": Shuffled,
    "streams": Streams,
}


def build_batches(train_N: Tensor, train: TrainRecipe) -> Batches:
    """Returns the batches of a recipe over a training split, on the split's device."""
    shape = (train.batch_size, train.sequence_length)
    return _KINDS[train.windows](train_N, shape, train.seed or 0)
