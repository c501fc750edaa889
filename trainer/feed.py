"""The inputs and targets of each step, ready on the device when the step begins.

Shapes: B sequences, T tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from trainer.device import make_current

Batch = tuple[Tensor, Tensor]
Make = Callable[[int], Batch]  # a pure function of the step: it may be called ahead, in a thread


class Feed:
    """Makes each batch when it is asked for."""

    def __init__(self, make: Make) -> None:
        self._make = make
        self.waited = 0.0  # time that training waited for batches [s]

    def at(self, step: int) -> Batch:
        """Returns x_BT and y_BT of a step."""
        began = time.perf_counter()
        batch = self._take(step)
        self.waited += time.perf_counter() - began
        return batch

    def _take(self, step: int) -> Batch:
        return self._make(step)


class Ahead(Feed):
    """Makes the next batch on the host, in a thread, while the device computes this one.

    Tokens stay in host memory, where those of large texts are mapped from disk; a batch is pinned
    there, so that its copy to the device runs beside the computing.
    """

    def __init__(self, make: Make, device: torch.device) -> None:
        super().__init__(make)
        self._device = device
        self._thread = ThreadPoolExecutor(1, "feed", initializer=make_current, initargs=(device,))
        self._next: tuple[int, Future[Batch]] | None = None

    def _take(self, step: int) -> Batch:
        known = self._next if self._next is not None and self._next[0] == step else None
        future = known[1] if known else self._thread.submit(self._prepare, step)
        self._next = step + 1, self._thread.submit(self._prepare, step + 1)
        x_BT, y_BT = future.result()
        to = self._device
        return x_BT.to(to, non_blocking=True), y_BT.to(to, non_blocking=True)

    def _prepare(self, step: int) -> Batch:
        x_BT, y_BT = self._make(step)
        if self._device.type != "cuda":
            return x_BT, y_BT
        return x_BT.contiguous().pin_memory(), y_BT.contiguous().pin_memory()


def build_feed(make: Make, device: torch.device) -> Feed:
    """Returns the feed of a device: on the CPU a thread would only take time from the training."""
    return Ahead(make, device) if device.type == "cuda" else Feed(make)
