"""Checkpoint files: tensors as safetensors, everything else as JSON in the file's metadata.

Nothing is ever unpickled: a checkpoint may come from anywhere.
"""

from __future__ import annotations

import json
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
    """A written checkpoint: the hash that its content must have, and the step it must be of."""

    path: Path
    sha256: str
    step: int | None = None  # None: any


def save(
    path: Path,
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
    tokenizer: str | None = None,
) -> CheckpointFile:
    """Writes a checkpoint that is whole or absent, whenever this process stops; returns it.

    It is not synced to the disk, which would stop the training for as long: a worker's files serve
    that worker only, and the server makes what it is sent durable.

    Args:
        path: replaced when it exists.
        tensors: by name, none sharing memory with another; on any device.
        state: JSON values.
        tokenizer: what turns ids into text, for people; never read here.

    Raises:
        OSError: the file cannot be written; nothing is left of it.
    """
    partial = path.with_name(path.name + ".partial")
    metadata = {_KEY: json.dumps({"format": FORMAT, **state})}
    if tokenizer is not None:
        metadata["tokenizer"] = tokenizer
    try:
        save_file({name: t.detach().contiguous() for name, t in tensors.items()}, partial, metadata)
        partial.replace(path)
    except SafetensorError as error:
        raise OSError(f"{path.name} cannot be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return CheckpointFile(path, file_sha256(path))


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
