"""The device that trials run on: which one, how much memory it has, and what running out is."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import re
import resource
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import torch

_KIB: Final = 1024  # bytes
_MIB: Final = 2**20  # bytes
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # <malloc.h>
_KEEPING: Final = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1}
# What glibc comes to by itself in a process that frees large blocks: mallopt(3), dynamic threshold.
_RETURNING: Final = {_MMAP_MAX: 65_536, _MMAP_THRESHOLD: 32 * _MIB, _TRIM_THRESHOLD: 64 * _MIB}
_OUT_OF_MEMORY: Final = re.compile(  # what torch says in a plain RuntimeError
    "can't allocate memory|not enough memory|CUBLAS_STATUS_ALLOC_FAILED"
    # oneDNN, whose kernels are made as they are needed, and allocate what they pack a matrix into.
    # Of a descriptor it says so where it has no kernel of the kind.
    "|could not create a primitive(?! descriptor)|could not execute a primitive"
    "|Storage size calculation overflowed"
)


def choose_device() -> torch.device:
    """Returns the GPU of this process, else the CPU.

    The first that CUDA_VISIBLE_DEVICES leaves visible or, under torchrun, that of the rank.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def make_current(device: torch.device) -> None:
    """Has CUDA take this device where none is named; for the calling thread alone.

    Else what a rank's threads do on no named device, as pinning host memory, may open a context on
    the first GPU, where each takes some hundred MB.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)


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


@contextmanager
def algorithms(deterministic: bool) -> Iterator[None]:
    """Inside, torch takes only algorithms that give the same bits each time, if so asked.

    On CUDA this needs CUBLAS_WORKSPACE_CONFIG=:4096:8 in the environment before the first use.
    """
    before = torch.are_deterministic_algorithms_enabled()
    if deterministic == before:  # the call would import torch's compiler
        yield
        return
    torch.use_deterministic_algorithms(deterministic)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


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


def memory_bytes(device: torch.device) -> int:
    """Returns the memory that the device has [bytes]: the GPU's, or what host and container free.

    The same for the whole life of a GPU's worker; on a CPU, as it is now.
    """
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return free_memory_bytes(device)


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
    return isinstance(error, RuntimeError) and bool(_OUT_OF_MEMORY.search(str(error)))


def out_of_memory_reason(error: BaseException, device: torch.device) -> str:
    """Returns what was asked for, in torch's words, and the peak that was reached."""
    said = (str(error).splitlines() or [""])[0][:500]
    if "memory" not in said:  # "std::bad_alloc", or oneDNN's words
        said = f"out of memory: {said}".removesuffix(": ")
    return f"{said} (peak {peak_memory_bytes(device) / 2**30:.2f} GiB)"


@contextmanager
def memory_kept() -> Iterator[None]:
    """Inside, memory that is freed on the CPU waits for the next step; afterwards it goes back.

    glibc returns blocks over 32 MiB to the system at once, and the next step gets them zeroed page
    by page: a third of the step of a model with 33,278 words (measured, docs/benchmarks.md).
    Other C libraries stay as they are.
    """
    _set_allocator(_KEEPING)
    try:
        yield
    finally:
        _set_allocator(_RETURNING)


def keep_no_memory() -> None:
    """Has the CPU's memory go back when it is freed, for the rest of the run: there is too little.

    Blocks that are kept lie in one heap, whose gaps may be too small for the next.
    """
    _set_allocator(_RETURNING)


def _set_allocator(options: Mapping[int, int]) -> None:
    if (library := _glibc()) is not None:
        for option, value in options.items():
            library.mallopt(option, value)


@lru_cache(maxsize=1)
def _glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None) if os.name == "posix" else None
    return library if hasattr(library, "gnu_get_libc_version") else None


def forget_compiled() -> None:
    """Drops what torch has compiled, also what gc.freeze has hidden from collection."""
    torch.compiler.reset()
    gc.unfreeze()


def release_memory() -> None:
    """Gives back what ended runs held, so that the next one finds it free."""
    gc.collect()
    if (library := _glibc()) is not None:
        library.malloc_trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
