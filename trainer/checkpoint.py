"""Checkpoint files: tensors as safetensors, everything else as JSON in the file's metadata.

Nothing is ever unpickled: a checkpoint may come from anywhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from studies.corpus import file_sha256
from studies.errors import LmtuneError

FORMAT: Final = 1  # raised when an older worker could misread a file
_KEY: Final = "lmtune"  # of our JSON in the metadata


class CheckpointUnusable(LmtuneError):
    """The file is damaged, or belongs to another recipe, text or format; start from step 0."""

    code: ClassVar[str] = "checkpoint_unusable"


@dataclass(frozen=True)
class CheckpointFile:
    """A written checkpoint and the hash that its content must have."""

    path: Path
    sha256: str


def save(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> CheckpointFile:
    """Writes a checkpoint that is whole or absent, whenever the machine stops; returns it.

    Args:
        path: replaced when it exists.
        tensors: by name, none sharing memory with another; on any device.
        state: JSON values.
    """
    partial = path.with_name(path.name + ".partial")
    metadata = {_KEY: json.dumps({"format": FORMAT, **state})}
    save_file({name: t.detach().contiguous() for name, t in tensors.items()}, partial, metadata)
    _sync(partial)
    partial.replace(path)
    _sync(path.parent)
    return CheckpointFile(path, file_sha256(path))


def _sync(path: Path) -> None:
    """Returns when a file, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load(file: CheckpointFile, device: torch.device) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """Returns the tensors, on the device, and the state of a verified checkpoint.

    Raises:
        CheckpointUnusable: the content has another hash, or is no checkpoint of this format.
    """
    try:
        if file_sha256(file.path) != file.sha256:
            raise CheckpointUnusable(f"{file.path.name} is damaged: its sha256 is another")
        with safe_open(file.path, framework="pt", device=str(device)) as content:
            state = json.loads((content.metadata() or {})[_KEY])
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CheckpointUnusable(f"{file.path.name} is no checkpoint: {error}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointUnusable(f"{file.path.name} is not of format {FORMAT}")
    return tensors, state
