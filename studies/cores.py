"""How many threads a process on the CPU is to have, where PyTorch would take too many."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")  # a container's, cgroup v2: us per period, or max


def thread_limit(processes: int) -> dict[str, str]:
    """Returns the environment of each of so many processes that share the cores.

    Empty where OMP_NUM_THREADS is said already, and for a process that is alone without a quota:
    PyTorch takes the physical cores that affinity (taskset, Slurm) leaves.
    """
    if "OMP_NUM_THREADS" in os.environ or (processes == 1 and _quota() is None):
        return {}
    return {"OMP_NUM_THREADS": str(max(_usable() // processes, 1))}


def _usable() -> int:
    """Returns the cores that affinity and quota leave."""
    affine = getattr(os, "sched_getaffinity", None)  # Linux
    count = len(affine(0)) if affine else os.cpu_count() or 1
    return min(count, _quota() or count)


def _quota() -> int | None:
    """Returns whole cores (docker --cpus), at least 1; None where nothing is said."""
    try:
        granted, period = _QUOTA.read_text().split()
        return max(int(granted) // int(period), 1)
    except (OSError, ValueError):
        return None
