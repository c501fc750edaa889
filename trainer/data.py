"""A text's splits as token ids, and the loss of knowing only frequencies.

Large texts are tokenised once on a machine: their ids wait in LMTUNE_HOME/cache/tokens, from where
all workers map them into memory.

Shapes: N tokens of a split, V vocabulary.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from studies.corpus import file_sha256, read_text, split, text_sha256
from studies.files import home
from studies.recipe import DataRecipe
from trainer.tokens import Tokenizer, build_tokenizer, tokenizer_file

logger = logging.getLogger(__name__)
_KEPT: Final = 2  # tokenised texts in memory; assumption: a worker serves few studies at once
STORED_FROM: Final = (
    2**22
)  # characters, bytes of a file; assumption: smaller texts are tokenised within a second
_FORMAT: Final = 2  # of stored ids; another number makes all be tokenised anew
_MATTERS: Final = {  # knobs that ids depend on, besides the tokenizer's file
    *("tokenizer", "vocabulary_size"),
    *("validation_fraction", "test_fraction", "validation_at", "test_at"),
}
_SPLITS: Final = ("train", "validation", "test")
_FACTS: Final = (
    *("sha256", "vocabulary", "bytes", "unigram_loss", "mask"),
    *("tokenizer", "tokenizer_sha256"),
)
_CARRIED: Final = 2**23  # characters of a tokenizer that each checkpoint carries; assumption


@dataclass(frozen=True)
class Dataset:
    """A tokenised text, on the CPU, in the smallest integers that hold its ids."""

    sha256: str  # of the text
    vocabulary: int  # V, how many ids there are
    train_N: Tensor
    validation_N: Tensor
    test_N: Tensor  # empty where no test split is kept back
    bytes: dict[str, int]  # by split, UTF-8 length of the predicted text: all but one token
    unigram_loss: float  # of a model that knows only frequencies [nats per token]
    mask: int | None = None  # the id that hides a token, where the tokenizer has one
    tokenizer: str | None = None  # what turns ids into text (Tokenizer.written), unless too large
    tokenizer_sha256: str | None = None  # of its file, or of what was learned where versions differ

    @property
    def lengths(self) -> tuple[int, int, int]:
        """Training, validation and test split [tokens]."""
        return len(self.train_N), len(self.validation_N), len(self.test_N)

    def bits_per_byte(self, loss: float, split: str = "validation") -> float:
        """Returns the loss [nats per token] on a split in bits per byte of text.

        With words the bytes of dropped spaces count, and those of unknown words: compare it
        only between runs with the same tokenizer.
        """
        tokens = self.lengths[_SPLITS.index(split)] - 1
        return loss * tokens / (math.log(2) * max(self.bytes[split], 1))


@lru_cache(maxsize=_KEPT)
def dataset(text: str | Path, data: DataRecipe) -> Dataset:
    """Returns the text as tokens; remembered, so that a warm worker does it once.

    Args:
        text: itself, or a file that holds it and never changes; the file is hashed in pieces, and
            read only where its ids are not stored.
        data: how it becomes tokens.
    """
    if isinstance(text, str):
        digest, size = text_sha256(text), len(text)
    else:
        digest, size = file_sha256(text), text.stat().st_size
    if size < STORED_FROM:
        return _tokenised(_read(text), data, digest)
    key = _key(digest, data)
    path = home() / "cache" / "tokens" / f"{key}.safetensors"
    if (stored := _load(path)) is not None:
        return stored
    with _turn(home() / "cache" / "locks" / key):
        if (stored := _load(path)) is not None:
            return stored
        fresh = _tokenised(_read(text), data, digest)
        _store(path, fresh)
    return _load(path) or fresh


def _read(text: str | Path) -> str:
    return text if isinstance(text, str) else read_text(text)


def _tokenised(text: str, data: DataRecipe, digest: str) -> Dataset:
    parts = split(text, data)
    tokenizer = build_tokenizer(text, parts.train, data)
    train_N, validation_N, test_N = map(tokenizer.encode, parts)
    written = tokenizer.written()
    learned = text_sha256(written) if written and data.tokenizer == "bpe" else None
    return Dataset(
        sha256=digest,
        vocabulary=tokenizer.vocabulary,
        train_N=train_N,
        validation_N=validation_N,
        test_N=test_N,
        bytes={
            name: _bytes(part, tokenizer) for name, part in zip(_SPLITS, parts, strict=True) if part
        },
        unigram_loss=unigram_loss(train_N, validation_N, tokenizer.vocabulary),
        mask=tokenizer.mask,
        tokenizer=written if written and len(written) <= _CARRIED else None,
        tokenizer_sha256=_file_sha256(data) or learned,
    )


def _bytes(part: str, tokenizer: Tokenizer) -> int:
    return len(part.encode()) - len(tokenizer.first(part).encode())


# ------------------------------------------------------------------------------- stored ids


@contextlib.contextmanager
def _turn(lock: Path) -> Iterator[None]:
    """Lets the machine's processes in one after another; where no file can be locked, at once."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            lock.parent.mkdir(parents=True, exist_ok=True)
            fcntl.flock(held.enter_context(lock.open("w")), fcntl.LOCK_EX)
        yield


def _key(digest: str, data: DataRecipe) -> str:
    """Returns a hash of all that the ids depend on."""
    said: dict[str, Any] = {
        "format": _FORMAT,
        "text": digest,
        "data": data.model_dump(include=_MATTERS, exclude_defaults=True),
    }
    if data.tokenizer in ("bpe", "file"):
        with contextlib.suppress(ModuleNotFoundError):
            said["tokenizers"] = version("tokenizers")
        said["file"] = _file_sha256(data)
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _file_sha256(data: DataRecipe) -> str | None:
    path = data.tokenizer_file if data.tokenizer == "file" else None
    return file_sha256(tokenizer_file(Path(path))) if path else None


def _store(path: Path, tokens: Dataset) -> None:
    """Writes the ids; a full disk costs only that they are not kept."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    tensors = {name: getattr(tokens, f"{name}_N") for name in _SPLITS}
    facts = {name: getattr(tokens, name) for name in _FACTS}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial, {"facts": json.dumps(facts, ensure_ascii=False)})
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        logger.warning("%s: the ids are not kept: %s", path, error)
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _load(path: Path) -> Dataset | None:
    """Returns stored ids, mapped and not read; None where there are none, or they are damaged."""
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["facts"])
            tensors = {f"{name}_N": file.get_tensor(name) for name in _SPLITS}
        return Dataset(**facts, **tensors)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None


def unigram_loss(train_N: Tensor, validation_N: Tensor, vocabulary: int) -> float:
    """Returns the validation loss of the training split's frequencies [nats per token].

    Add-one smoothing; over the tokens that a model predicts, all but the first.
    """
    seen_V = train_N.int().bincount(minlength=vocabulary).double() + 1
    asked_V = validation_N[1:].int().bincount(minlength=vocabulary).double()
    log_probability_V = (seen_V / seen_V.sum()).log()
    return float(-(asked_V @ log_probability_V) / asked_V.sum())


def draw_seed(seed: int, step: int, purpose: str) -> int:
    """Returns the seed of one purpose at one step [0, 2**63): a hash, and nothing else."""
    digest = hashlib.sha256(f"{seed} {step} {purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
