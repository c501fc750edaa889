"""What a run was made with: the versions of libraries, the driver, the commit of this code."""

from __future__ import annotations

import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import torch

_PACKAGES: Final = ("lmtune", "numpy", "safetensors", "tokenizers", "transformers")  # beside torch
_ROOT: Final = Path(__file__).parents[1]


@lru_cache(maxsize=1)
def provenance() -> dict[str, Any]:
    """Returns the facts, for a trial's environment; found once in a process's life."""
    versions = {name: known for name in _PACKAGES if (known := _version(name)) is not None}
    return {**versions, "cuda": torch.version.cuda, "driver": _driver(), "git_commit": _commit()}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _driver() -> str | None:
    """Returns the version of NVIDIA's driver; None without one."""
    try:
        said = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        return None
    return next((word for word in said.split() if word[:1].isdigit() and "." in word), None)


def _commit() -> str | None:
    """Returns the commit that this code was checked out at, with + where files differ from it."""
    if not (_ROOT / ".git").exists():
        return None  # installed as a package
    try:
        commit = _git("rev-parse", "HEAD")
        return f"{commit}+" if _git("status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*words: str) -> str:
    done = subprocess.run(  # noqa: S603
        ["git", "-C", str(_ROOT), *words],  # noqa: S607
        capture_output=True, text=True, check=True, timeout=10,
    )  # fmt: skip
    return done.stdout.strip()
