"""How many cores of the CPU there are for this process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")  # cgroup v2: microseconds per period, or max


def usable_cores() -> int:
    """Returns what affinity (taskset, Slurm) and quota (docker --cpus) leave."""
    affine = getattr(os, "sched_getaffinity", None)  # Linux
    count = len(affine(0)) if affine else os.cpu_count() or 1
    return min(count, _quota() or count)


def _quota() -> int | None:
    """Returns whole cores, at least 1; None where nothing is said."""
    try:
        granted, period = _QUOTA.read_text().split()
        return max(int(granted) // int(period), 1)
    except (OSError, ValueError):
        return None
