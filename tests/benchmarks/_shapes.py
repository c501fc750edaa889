"""What bench-trainer trains: shapes of models, their text, and how a GPU computes.

Shapes: N tokens of the text.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

from studies.corpus import builtin_text
from studies.recipe import Recipe
from trainer.data import dataset
from trainer.precision import Native

LEARNING_RATE: Final = 1e-3
CLIP: Final = 1.0
_BYTES: Final = 256  # ids
_DRAWN: Final = 400_000  # words of a made text, beside one of each; assumption: batches enough


@dataclass(frozen=True)
class Shape:
    """A model and its batch."""

    kind: str  # lstm or gpt
    width: int  # embedding_dim
    hidden: int  # hidden_dim
    layers: int
    batch: int  # sequences
    length: int  # tokens
    steps: int  # timed
    heads: int = 4
    vocabulary: int = _BYTES  # of bytes, else of words
    tied: bool = False  # the output layer shares the embedding's weights

    @property
    def tokens(self) -> int:
        """Tokens of the timed steps."""
        return self.steps * self.batch * self.length


SHAPES: Final[Mapping[str, Shape]] = {
    "lstm-small": Shape("lstm", 64, 128, 1, 8, 32, 100),
    "gpt-small": Shape("gpt", 64, 256, 2, 8, 32, 60),
    "lstm-medium": Shape("lstm", 256, 512, 2, 16, 64, 10),
    "gpt-medium": Shape("gpt", 256, 1024, 4, 16, 64, 10),
    # GPT-2's smallest: 1,024 tokens of 50,257 ids.
    "gpt-124m": Shape("gpt", 768, 3072, 12, 8, 1024, 20, heads=12, vocabulary=50_257, tied=True),
}
ON_A_GPU: Final = ("gpt-124m",)  # a step of it takes a CPU a minute


@dataclass(frozen=True)
class Setting:
    """How all loops compute alike."""

    precision: str = "fp32"
    compile: bool = False

    @property
    def warm(self) -> int:
        """Untimed steps, in the first of which models are compiled."""
        return 20 if self.compile else 10

    @property
    def autocast(self) -> torch.dtype | None:
        """The 16-bit format of the forward pass, where there is one."""
        return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.precision)

    def units(self) -> AbstractContextManager[None]:
        """Holds the GPU's matrix units to IEEE fp32, or lets them use tf32, as our runs do."""
        return Native(self.precision).computing() if torch.cuda.is_available() else nullcontext()


PLAIN: Final = Setting()


def recipe(shape: Shape, setting: Setting = PLAIN) -> Recipe:
    """Returns what our loop trains."""
    words = {"tokenizer": "words", "vocabulary_size": shape.vocabulary}
    return Recipe.model_validate({
        "data": {"builtin": "stdlib", **({} if shape.vocabulary == _BYTES else words)},
        "model": {
            "kind": shape.kind, "embedding_dim": shape.width, "hidden_dim": shape.hidden,
            "layers": shape.layers, "heads": shape.heads, "positions": "learned",
            "tied_weights": shape.tied,
        },
        "train": {
            "batch_size": shape.batch, "sequence_length": shape.length, "optimizer": "adamw",
            "learning_rate": LEARNING_RATE, "gradient_clip": CLIP, "schedule": "constant",
            "steps": 10**6, "evaluate_every": 10**6, "seed": 1,
            "precision": setting.precision, "compile": setting.compile,
        },
    })  # fmt: skip


@lru_cache(maxsize=2)
def text(vocabulary: int) -> str:
    """Returns the text that all train on: of bytes, or made of so many words.

    The made one has every word once, so that all are ids, and then words by Zipf's law: what they
    are changes no speed.
    """
    if vocabulary == _BYTES:
        return builtin_text("stdlib")
    words = [f"w{number}" for number in range(1, vocabulary)]  # and the unknown one
    weights = [1 / number for number in range(1, vocabulary)]
    return " ".join([*words, *random.Random(0).choices(words, weights, k=_DRAWN)])


def tokens_N(shape: Shape, device: torch.device) -> Tensor:
    """Returns the training split, on the device: our loop's own tokens."""
    return dataset(text(shape.vocabulary), recipe(shape).data).train_N.to(device)


def synchronize() -> None:
    """Waits for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
