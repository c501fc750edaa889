"""Tokenizers: what the ids of a text are.

Shapes: N tokens of a part of a text.
"""

from __future__ import annotations

import json
import os
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Protocol

import torch
from torch import Tensor

from studies.corpus import words
from studies.errors import InvalidInput, StartupError
from studies.recipe import DataRecipe

UNKNOWN: Final = "<unk>"  # WikiText's name, so that its own unknown words are ours
_MASKS: Final = ("[MASK]", "<mask>")  # BERT's and RoBERTa's
_CHUNK: Final = 2**16  # characters given to BPE at once; assumption: enough for each thread
# Where GPT-2's pattern cuts in any case: after a line end between two characters that are no space.
_CUT: Final = re.compile(r"(?<=\S\n)(?=\S)")


class Tokenizer(Protocol):
    """Text as ids from 0 up to `vocabulary`."""

    vocabulary: int
    mask: int | None  # the id that hides a token from a masked model, where there is one

    def encode(self, part: str) -> Tensor:
        """Returns ids_N of a part of the text, in the smallest integers that hold them."""

    def first(self, part: str) -> str:
        """Returns the text of the part's first token."""

    def written(self) -> str | None:
        """Returns what turns ids into text, as JSON: a tokenizer.json, or the list of tokens.

        None for bytes, which need nothing.
        """


class Bytes:
    """UTF-8."""

    vocabulary = 256
    mask = None

    def encode(self, part: str) -> Tensor:
        """Returns ids_N."""
        if not part:
            return as_tensor([], self.vocabulary)
        return torch.frombuffer(bytearray(part.encode()), dtype=torch.uint8)

    def first(self, part: str) -> str:
        """Returns a character of one byte, whichever the first one is."""
        return part[:1] and "?"

    def written(self) -> None:
        """Returns None."""


class Characters:
    """The distinct characters of the whole text, sorted, as nanoGPT has them."""

    mask = None

    def __init__(self, text: str) -> None:
        self._ids = {character: i for i, character in enumerate(sorted(set(text)))}
        self.vocabulary = len(self._ids)

    def encode(self, part: str) -> Tensor:
        """Returns ids_N."""
        return as_tensor((self._ids[c] for c in part), self.vocabulary)

    def first(self, part: str) -> str:
        """Returns the first character."""
        return part[:1]

    def written(self) -> str:
        """Returns the characters."""
        return json.dumps(list(self._ids), ensure_ascii=False)


class Words:
    """The most frequent words of the training split; ties in the order of their appearance."""

    mask = None

    def __init__(self, train: str, size: int) -> None:
        counts = Counter(words(train))
        counts.pop(UNKNOWN, None)
        kept = [UNKNOWN, *(word for word, _ in counts.most_common(size - 1))]
        self._ids = {word: i for i, word in enumerate(kept)}
        self.vocabulary = len(self._ids)

    def encode(self, part: str) -> Tensor:
        """Returns ids_N."""
        return as_tensor((self._ids.get(w, 0) for w in words(part)), self.vocabulary)

    def first(self, part: str) -> str:
        """Returns the first word."""
        return next(words(part), "")

    def written(self) -> str:
        """Returns the words."""
        return json.dumps(list(self._ids), ensure_ascii=False)


class Learned:
    """A tokenizer of Hugging Face's tokenizers package; it adds no ids of its own to a text."""

    def __init__(self, inner: Any, cut: Callable[[str], Iterator[str]]) -> None:
        self._inner, self._cut = inner, cut
        self.vocabulary = 1 + max(inner.get_vocab().values())  # there may be gaps
        masks = (inner.token_to_id(name) for name in _MASKS)
        self.mask: int | None = next((i for i in masks if i is not None), None)

    def encode(self, part: str) -> Tensor:
        """Returns ids_N."""
        encodings = self._inner.encode_batch(list(self._cut(part)), add_special_tokens=False)
        ids = [torch.tensor(e.ids, dtype=torch.int32) for e in encodings]
        return as_tensor(torch.cat(ids) if ids else [], self.vocabulary)

    def first(self, part: str) -> str:
        """Returns the first token's text."""
        head = next(self._cut(part), "")
        offsets = self._inner.encode(head, add_special_tokens=False).offsets
        return head[: offsets[0][1]] if offsets else ""

    def written(self) -> str:
        """Returns the tokenizer.json."""
        return str(self._inner.to_str())


def _bpe(train: str, size: int) -> Learned:
    """Returns byte pairs merged after their frequency in the training split, as GPT-2 has them.

    Source:
        arXiv:1508.07909; over bytes, and words cut as in GPT-2, section 2.2.
    """
    library = _tokenizers()
    inner = library.Tokenizer(library.models.BPE())
    bytewise = library.pre_tokenizers.ByteLevel
    inner.pre_tokenizer = bytewise(add_prefix_space=False)
    inner.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=bytewise.alphabet(), show_progress=False
    )
    inner.train_from_iterator(_chunks(train), trainer)
    return Learned(inner, _chunks)


def _file(path: Path) -> Learned:
    """Returns the tokenizer that a tokenizer.json describes; each split is encoded in one piece."""
    file = tokenizer_file(path)
    try:
        inner = _tokenizers().Tokenizer.from_file(str(file))
    except Exception as error:  # the package raises no narrower one
        message = f"{file} is no tokenizer: {error}"
        remedy = "save it with tokenizer.save_pretrained(FOLDER)"
        raise InvalidInput.of("data.tokenizer_file", message, remedy) from None
    inner.no_truncation()
    inner.no_padding()
    return Learned(inner, lambda part: iter([part]))


def tokenizer_file(path: Path) -> Path:
    """Returns the tokenizer.json that a recipe names, itself or by its folder."""
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        message = f"this worker has no file {file}"
        remedy = "copy it there, or correct the path"
        raise InvalidInput.of("data.tokenizer_file", message, remedy)
    return file


def _chunks(part: str) -> Iterator[str]:
    """Yields the part in pieces that byte pairs never reach across."""
    begin = 0
    while begin < len(part):
        cut = _CUT.search(part, begin + _CHUNK)
        end = cut.start() if cut else len(part)
        yield part[begin:end]
        begin = end


def build_tokenizer(text: str, train: str, data: DataRecipe) -> Tokenizer:
    """Returns the tokenizer of a recipe: what it learns, it learns from the training split."""
    builders: Mapping[str, Callable[[], Tokenizer]] = {
        "bytes": Bytes,
        "characters": lambda: Characters(text),
        "words": lambda: Words(train, data.vocabulary_size),
        "bpe": lambda: _bpe(train, data.vocabulary_size),
        "file": lambda: _file(Path(data.tokenizer_file or "")),
    }
    return builders[data.tokenizer]()


def as_tensor(ids: Iterable[int] | Tensor, vocabulary: int) -> Tensor:
    """Returns ids in the smallest integers that hold the vocabulary; no list is made of them."""
    kind, code = (torch.uint8, "B") if vocabulary <= 256 else (torch.int32, "i")
    if isinstance(ids, Tensor):
        return ids.to(kind)
    packed = array(code, ids)
    return torch.frombuffer(packed, dtype=kind) if packed else torch.tensor([], dtype=kind)


def _tokenizers() -> ModuleType:
    """Returns the package, imported when it is first needed."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # unsaid, it warns after a fork
    try:
        import tokenizers
    except ImportError:
        raise StartupError(
            "data.tokenizer: this worker has no tokenizers; pip install 'lmtune[huggingface]'"
        ) from None
    return tokenizers
