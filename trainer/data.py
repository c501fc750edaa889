"""Text as token ids, the batches of each step, and the loss of knowing only frequencies.

Shapes: N tokens of a split, B sequences, T tokens of a sequence, V vocabulary.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

from studies.corpus import count_splits, split, text_sha256, words
from studies.recipe import DataRecipe

UNKNOWN: Final = "<unk>"  # WikiText's name, so that its own unknown words are ours
_KEPT: Final = 2  # tokenised texts in memory; assumption: a worker serves few studies at once


@dataclass(frozen=True)
class Dataset:
    """A tokenised text, on the CPU, in the smallest integers that hold its ids."""

    sha256: str  # of the text
    vocabulary: int  # V, how many ids there are
    train_N: Tensor
    validation_N: Tensor
    validation_bytes: int  # UTF-8 length of the predicted text: all of the split but one token
    unigram_loss: float  # of a model that knows only frequencies [nats per token]

    def bits_per_byte(self, loss: float) -> float:
        """Returns the loss [nats per token] on the validation split in bits per byte of text.

        With words the bytes of dropped spaces count, and those of unknown words: compare it
        only between runs with the same tokenizer.
        """
        tokens = len(self.validation_N) - 1
        return loss * tokens / (math.log(2) * max(self.validation_bytes, 1))


@lru_cache(maxsize=_KEPT)
def lengths(text: str, data: DataRecipe) -> tuple[int, int]:
    """Returns the length of the training and of the validation split [tokens]; remembered."""
    return count_splits(text, data)


@lru_cache(maxsize=_KEPT)
def dataset(text: str, data: DataRecipe) -> Dataset:
    """Returns the text as tokens; remembered, so that a warm worker does it once."""
    train, validation = split(text, data.validation_fraction)
    vocabulary, encode = _TOKENIZERS[data.tokenizer](text, train, data)
    train_N, validation_N = encode(train), encode(validation)
    first = _bytes_of_first_token(validation, data.tokenizer)
    return Dataset(
        sha256=text_sha256(text),
        vocabulary=vocabulary,
        train_N=train_N,
        validation_N=validation_N,
        validation_bytes=len(validation.encode()) - first,
        unigram_loss=unigram_loss(train_N, validation_N, vocabulary),
    )


Encoder = Callable[[str], Tensor]


def _bytes(text: str, train: str, data: DataRecipe) -> tuple[int, Encoder]:
    return 256, lambda part: torch.frombuffer(bytearray(part.encode()), dtype=torch.uint8)


def _characters(text: str, train: str, data: DataRecipe) -> tuple[int, Encoder]:
    """The distinct characters of the whole text, sorted, as nanoGPT has them."""
    ids = {character: i for i, character in enumerate(sorted(set(text)))}
    return len(ids), lambda part: _ids([ids[c] for c in part], len(ids))


def _words(text: str, train: str, data: DataRecipe) -> tuple[int, Encoder]:
    """The most frequent words of the training split; ties in the order of their appearance."""
    counts = Counter(words(train))
    counts.pop(UNKNOWN, None)
    kept = [UNKNOWN, *(word for word, _ in counts.most_common(data.vocabulary_size - 1))]
    ids = {word: i for i, word in enumerate(kept)}
    return len(ids), lambda part: _ids([ids.get(w, 0) for w in words(part)], len(ids))


_TOKENIZERS: Final[Mapping[str, Callable[[str, str, DataRecipe], tuple[int, Encoder]]]] = {
    "bytes": _bytes,
    "characters": _characters,
    "words": _words,
}


def _ids(ids: Sequence[int], vocabulary: int) -> Tensor:
    return torch.tensor(ids, dtype=torch.uint8 if vocabulary <= 256 else torch.int32)


def _bytes_of_first_token(validation: str, tokenizer: str) -> int:
    first = validation[:1] if tokenizer != "words" else next(words(validation), "")
    return 1 if tokenizer == "bytes" else len(first.encode())


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


class Batches:
    """Random windows of the training split.

    Invariant:
        The batch of a step is a function of (seed, step) only, the same on every device; so a
        resumed run needs no generator state.
    """

    def __init__(self, train_N: Tensor, shape: tuple[int, int], seed: int) -> None:
        self._train_N, self._seed = train_N, seed
        self._batch_size, length = shape
        self._offsets_T = torch.arange(length + 1, device=train_N.device)

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """Returns x_BT and y_BT of a step: y is x one token later."""
        generator = torch.Generator().manual_seed(draw_seed(self._seed, step, "batch"))
        starts = len(self._train_N) - len(self._offsets_T) + 1
        start_B = torch.randint(starts, (self._batch_size,), generator=generator)
        start_B = start_B.to(self._train_N.device, non_blocking=True)
        window_BT = self._train_N[start_B[:, None] + self._offsets_T].long()
        return window_BT[:, :-1], window_BT[:, 1:]
