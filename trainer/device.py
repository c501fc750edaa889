"""The device that trials run on: which one, how much memory it has, and what running out is."""

from __future__ import annotations

import gc
import os
import platform
import resource
import sys
from pathlib import Path
from typing import Any, Final

import torch

_KIB: Final = 1024  # bytes
_OUT_OF_MEMORY: Final = (  # what torch says in a plain RuntimeError
    "can't allocate memory",
    "not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "Storage size calculation overflowed",
)


def choose_device() -> torch.device:
    """Returns the first GPU that CUDA_VISIBLE_DEVICES leaves visible, else the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def short_name(device: torch.device) -> str:
    """Returns what lists of workers show: cpu, or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def describe(device: torch.device) -> dict[str, Any]:
    """Returns the facts of device and libraries that a trial's environment shows."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "device": device.type,
        "device_name": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "pid": os.getpid(),
    }


def seed_generators(device: torch.device, seed: int) -> None:
    """Seeds torch's default generators of the CPU and of the device.

    Unlike torch.manual_seed, which formats three stack traces where there is no GPU: 0.5 ms.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def free_memory_bytes(device: torch.device) -> int:
    """Returns the memory a new run may fill [bytes]: of the GPU, or of host and container."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min(_host_free_bytes(), _cgroup_free_bytes())


def _host_free_bytes() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(n.split()[1]) for n in lines if n.startswith("MemAvailable")) * _KIB
    except (OSError, StopIteration):  # no Linux
        return sys.maxsize


def _cgroup_free_bytes() -> int:
    """Returns what the container's limit leaves, as cgroup v2 tells it inside the container."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit, used = ((folder / f"memory.{n}").read_text().strip() for n in ("max", "current"))
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except OSError:
        return sys.maxsize
    reclaimable = int(stat.get("inactive_file", 0))  # the kernel drops it before it kills
    return sys.maxsize if limit == "max" else int(limit) - int(used) + reclaimable


def reset_peak_memory(device: torch.device) -> None:
    """Starts the peak anew, where the system lets us."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM
    except OSError:  # no Linux, or a container that forbids it: the peak of the process's life
        return


def peak_memory_bytes(device: torch.device) -> int:
    """Returns the most memory in use since the reset [bytes]: the GPU's, or the process's."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(n.split()[1]) for n in lines if n.startswith("VmHWM")) * _KIB
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else _KIB  # getrusage(2) differs
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def is_out_of_memory(error: BaseException) -> bool:
    """True for every way in which torch and Python say that memory is used up."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)


def release_memory() -> None:
    """Gives back what ended runs held, so that the next one finds it free."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
