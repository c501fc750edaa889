"""Texts to train on: where they come from, how they are split and what a token is.

The one place that knows the split rule, so that the server's check and the worker's training
agree on it. No tensors here: the server imports this without torch.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from studies.errors import FieldError, InvalidInput, StartupError
from studies.recipe import DataRecipe, Recipe

# With the documentation, one million characters that every CPython since 3.11 carries; single
# files of middling size, so that no module alone fills the validation split.
STDLIB_MODULES: Final = (
    *("calendar", "contextlib", "csv", "fractions", "functools", "gzip", "heapq", "pathlib"),
    *("pprint", "queue", "random", "selectors", "shlex", "statistics", "tempfile", "textwrap"),
    *("threading", "timeit", "trace", "types", "uuid", "warnings", "weakref"),
)
_WORD: Final = re.compile(r"\n|\S+")


def builtin_text(name: str) -> str:
    """Returns the text that this Python carries under the name; only `stdlib` is one.

    Documents stand in the order of the sha256 of their names, so that documentation and source
    are mixed and the validation split resembles the rest. The text differs between Python
    versions: compare `text_sha256`, not the name.

    Raises:
        StartupError: this Python was installed without its documentation or source.
    """
    if name != "stdlib":
        raise InvalidInput.of("data.builtin", f"{name!r} is unknown", "write `builtin: stdlib`")
    documents = {**_topics(), **{f"{m}.py": _source(m) for m in STDLIB_MODULES}}
    return "\n".join(documents[n] for n in sorted(documents, key=text_sha256))


def _topics() -> Mapping[str, str]:
    try:
        topics: Mapping[str, str] = importlib.import_module("pydoc_data.topics").topics
    except ImportError:
        raise _incomplete("pydoc_data") from None
    return topics


def _source(module: str) -> str:
    spec = importlib.util.find_spec(module)
    try:
        return Path(spec.origin if spec and spec.origin else module).read_text(encoding="utf-8")
    except OSError:
        raise _incomplete(f"the source of {module}") from None


def _incomplete(missing: str) -> StartupError:
    return StartupError(
        f"builtin: stdlib needs {missing}, which this Python lacks;"
        " install its full standard library, or name a text with data.path"
    )


def read_text(path: Path) -> str:
    """Returns the whole of a UTF-8 file, line ends as they are.

    Raises:
        InvalidInput: `data.path` is missing, a folder, unreadable, empty or not UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        reason = f"{path}: {error.strerror or error}"
        raise InvalidInput.of("data.path", reason, "name a text file that can be read") from None
    except UnicodeDecodeError as error:
        reason = f"{path} is not UTF-8 (byte {error.start})"
        raise InvalidInput.of("data.path", reason, "convert it, as with `iconv -t utf-8`") from None
    if not text:
        raise InvalidInput.of("data.path", f"{path} is empty", "name a file with text in it")
    return text


def load_text(data: DataRecipe, upload: Callable[[str], Path]) -> str:
    """Returns the builtin or uploaded text that a recipe names.

    Args:
        data: the recipe's section; a path was replaced (studies/documents.py).
        upload: gives the file of an uploaded text by its sha256.
    """
    return builtin_text(data.builtin) if data.builtin else read_text(upload(data.sha256 or ""))


def text_sha256(text: str) -> str:
    """Returns the sha256 of the text's UTF-8 bytes: that of a file which holds just this text."""
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Returns the sha256 of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Splits(NamedTuple):
    """The parts of a text; the test split is empty where none is kept back."""

    train: str
    validation: str
    test: str


def split(text: str, data: DataRecipe) -> Splits:
    """Returns the text's splits, which stand in it in their order, cut at characters.

    Raises:
        InvalidInput: a cut that the recipe names lies past the text's end.
    """
    validation, test = data.cuts(len(text))
    for field in ("validation_at", "test_at"):
        if (getattr(data, field) or 0) > len(text):
            message = f"{getattr(data, field)} is past the text's end ({len(text)} characters)"
            raise InvalidInput.of(f"data.{field}", message, "give the text that it was made for")
    return Splits(text[:validation], text[validation:test], text[test:])


def words(text: str) -> Iterator[str]:
    """Yields the runs of non-space and the line ends; other white space is dropped."""
    return (match.group() for match in _WORD.finditer(text))


def count_tokens(text: str, tokenizer: str) -> int:
    """Returns how many tokens the text has [tokens]; bpe and file: the most it can have."""
    if tokenizer == "characters":
        return len(text)
    return sum(1 for _ in words(text)) if tokenizer == "words" else len(text.encode())


@dataclass(frozen=True)
class CorpusFacts:
    """What a checked text amounts to under a recipe."""

    sha256: str
    characters: int
    train_tokens: int
    validation_tokens: int
    test_tokens: int


def check_corpus(text: str, recipe: Recipe) -> CorpusFacts:
    """Returns the facts of a text that is long enough for the recipe.

    Raises:
        InvalidInput: the training split is shorter than one batch, or another split has no token
            to predict.
    """
    counts = count_splits(text, recipe.data)
    require_enough(counts, recipe)
    return CorpusFacts(text_sha256(text), len(text), *counts)


def count_splits(text: str, data: DataRecipe) -> tuple[int, int, int]:
    """Returns the length of the training, validation and test split [tokens]."""
    train, validation, test = (count_tokens(part, data.tokenizer) for part in split(text, data))
    return train, validation, test


def require_enough(counts: tuple[int, int, int], recipe: Recipe) -> None:
    """Raises InvalidInput where the splits [tokens] are too short for the recipe."""
    train, validation, test = counts
    batch = recipe.train.batch_size * (recipe.train.sequence_length + 1)
    errors = []
    if train < batch:
        message = f"the training split has {train} tokens, one batch needs {batch}"
        remedy = "lower train.batch_size or train.sequence_length, or give a longer text"
        errors.append(FieldError("data", message, remedy))
    for name, tokens in (("validation", validation), ("test", test)):
        if tokens < 2 and (name != "test" or recipe.data.has_test):
            message = f"the {name} split has {tokens} tokens, and needs 2"
            errors.append(FieldError(_cut(recipe.data, name), message, "give it a longer text"))
    if errors:
        raise InvalidInput(errors)


def _cut(data: DataRecipe, name: str) -> str:
    """Returns the field that says where a split begins."""
    fixed = getattr(data, f"{name}_at") is not None
    return f"data.{name}_at" if fixed else f"data.{name}_fraction"
