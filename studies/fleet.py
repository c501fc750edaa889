"""The workers in numbers: how many there are, what they do, and how many GPUs they have."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from studies.wire import View

WorkerState = Literal["idle", "busy", "lost", "gone"]


class WorkerCount(View):
    """How many workers of one device are in one state."""

    device: str
    state: WorkerState
    workers: int

    @property
    def gpus(self) -> int:
        """Those that they have together; a worker that trains on several says "2 x NAME"."""
        several = re.match(r"(\d+) x (?=.)", self.device)
        each = int(several[1]) if several else 1
        return 0 if self.device.endswith("cpu") else each * self.workers


def number(counts: Iterable[WorkerCount], *states: WorkerState) -> int:
    """Returns how many workers are in one of the states."""
    return sum(count.workers for count in counts if count.state in states)


def in_words(counts: Iterable[WorkerCount]) -> str:
    """Returns who could train and what they have, as "3 workers, 2 busy; 2 GPUs"."""
    counts = list(counts)
    there, lost = number(counts, "idle", "busy"), number(counts, "lost")
    gpus = sum(count.gpus for count in counts if count.state in ("idle", "busy"))
    said = [f"{there} worker{_s(there)}, {number(counts, 'busy')} busy"]
    said += [f"{gpus} GPU{_s(gpus)}"] if gpus else []
    said += [f"{lost} lost"] if lost else []
    return "; ".join(said)


def _s(number: int) -> str:
    return "" if number == 1 else "s"
