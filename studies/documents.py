"""What a study's `data.path` amounts to: one text, and where its own splits begin in it.

Read on the side of whoever creates the study: servers and workers see the text alone. A path is a
text file; a `.jsonl` file, a document per line; a folder of such files; or a folder that Hugging
Face's `save_to_disk` wrote. docs/data.md has the rules.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from studies.corpus import builtin_text, read_text, text_sha256
from studies.errors import InvalidInput
from studies.explain import field_errors
from studies.recipe import DataRecipe

SUFFIXES: Final = (".txt", ".text", ".md", ".rst", ".tokens", ".jsonl")  # read in a folder
_SPLITS: Final = {  # what a file or a dataset's part may be called
    "train": "train",
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    "test": "test",
}
_HELD_BACK: Final = ("validation", "test")


def resolve(data: DataRecipe, base: Path = Path()) -> tuple[DataRecipe, str]:
    """Returns the section with its path replaced by the text's hash and cuts, and the text.

    Args:
        data: names a path, or a builtin text, and then stays as it is.
        base: the folder that the path is relative to.

    Raises:
        InvalidInput: the path, a file below it, or a document is not what it should be.
    """
    if data.builtin is not None:
        return data, builtin_text(data.builtin)
    parts = _read(base / (data.path or ""), data)
    text = "".join(parts.values())
    said = data.model_dump(exclude_unset=True, exclude={"path"})
    said = {**said, "sha256": text_sha256(text), **_cuts(parts, said)}
    try:
        return DataRecipe.model_validate(said), text
    except ValidationError as error:
        raise InvalidInput(field_errors(error.errors(), DataRecipe)) from None


def _cuts(parts: dict[str, str], said: dict[str, Any]) -> dict[str, int]:
    """Returns where the source's own splits begin; raises InvalidInput where a cut is given too."""
    cuts, position = {}, 0
    for name, text in parts.items():
        if name in _HELD_BACK:
            cuts[f"{name}_at"] = position
        position += len(text)
    for field in cuts:
        if said.get(field) is not None:
            message, remedy = "the source brings its own splits", "remove it"
            raise InvalidInput.of(f"data.{field}", message, remedy)
    return cuts


def _read(path: Path, data: DataRecipe) -> dict[str, str]:
    """Returns the text of each split in their order; `train` is all where there are no others."""
    if not path.is_dir():
        return {"train": _file(path, data)}
    if (path / "dataset_dict.json").is_file():
        return _dataset_splits(path, data)
    if (path / "state.json").is_file():
        return {"train": _joined(_rows(path, data), path, data)}
    return _split_files(path, data) or {"train": _folder(path, data)}


def _is_text(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _file(path: Path, data: DataRecipe) -> str:
    if path.suffix.lower() != ".jsonl":
        return read_text(path)
    return _joined(_lines(path, data.text_field), path, data)


def _folder(folder: Path, data: DataRecipe) -> str:
    """Returns the text files of a folder and those below it as one text, sorted by their paths."""
    files = (path for path in folder.rglob("*") if path.is_file() and _is_text(path))
    named = {path.relative_to(folder).as_posix(): path for path in files}
    seen = [named[n] for n in sorted(named) if not any(p.startswith(".") for p in n.split("/"))]
    if not seen:
        message = f"{folder} has no file that ends in {', '.join(SUFFIXES)}"
        raise InvalidInput.of("data.path", message, "name a folder of texts")
    return data.separator.join(_file(path, data) for path in seen)


def _split_files(folder: Path, data: DataRecipe) -> dict[str, str]:
    """Returns the splits of a folder with train.EXT and valid.EXT or test.EXT; else nothing.

    Other files are not read then. A name may have a part before it: `wiki.train.tokens`.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        name = _SPLITS.get(path.stem.rpartition(".")[2])
        if name is None or not path.is_file() or not _is_text(path):
            continue
        _place(found, name, path)
    if "train" not in found or len(found) == 1:
        return {}
    return {name: _file(found[name], data) for name in ("train", *_HELD_BACK) if name in found}


def _place(found: dict[str, Path], name: str, path: Path) -> None:
    """Notes where a split lies; raises InvalidInput where there is one already."""
    if name in found:
        message = f"{path.parent} has two {name} splits: {found[name].name} and {path.name}"
        raise InvalidInput.of("data.path", message, "remove one of the two")
    found[name] = path


def _lines(path: Path, field: str) -> Iterator[str]:
    """Yields the document of each line of a jsonl file; empty lines and a BOM are passed over."""
    text = read_text(path).removeprefix("\ufeff")
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _document(line, field, f"{path}, line {number}")


def _document(line: str, field: str, where: str) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        message = f"{where} is no JSON: {error}"
        raise InvalidInput.of("data.path", message, "write one JSON object per line") from None
    if not isinstance(row, dict):
        message = f"{where} is no JSON object"
        raise InvalidInput.of("data.path", message, 'write {"text": "..."}')
    if field not in row:
        raise _no_field(where, field, list(row))
    text = row[field]
    if not isinstance(text, str):
        message = f"{where}: {field} is no text"
        raise InvalidInput.of("data.text_field", message, "name a field that holds texts")
    return text


def _no_field(where: str, field: str, there: list[str]) -> InvalidInput:
    message = f"{where} has no field {field!r}"
    return InvalidInput.of("data.text_field", message, f"it has {', '.join(there) or 'none'}")


def _joined(documents: Iterator[str], path: Path, data: DataRecipe) -> str:
    """Returns the documents as one text; half a surrogate pair, which JSON allows, is an error."""
    text = data.separator.join(documents)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        message = f"{path} escapes half of a surrogate pair, {text[error.start]!r}"
        raise InvalidInput.of("data.path", message, "write the character whole") from None
    if not text:
        raise InvalidInput.of("data.path", f"{path} has no text in it", "name a source with texts")
    return text


def _dataset_splits(folder: Path, data: DataRecipe) -> dict[str, str]:
    """Returns the splits of a saved DatasetDict; parts under other names are not read."""
    there = _said(folder / "dataset_dict.json", "splits")
    named: dict[str, Path] = {}
    for name in there:
        if name in _SPLITS:
            _place(named, _SPLITS[name], folder / name)
    if "train" not in named:
        message = f"{folder} has no split `train`, but {', '.join(there) or 'none'}"
        raise InvalidInput.of("data.path", message, "name the folder of one split")
    splits = [name for name in ("train", *_HELD_BACK) if name in named]
    return {name: _joined(_rows(named[name], data), named[name], data) for name in splits}


def _rows(folder: Path, data: DataRecipe) -> Iterator[str]:
    """Yields the documents of a saved Dataset."""
    arrow, ipc = _arrow()
    for path in [folder / name for name in _said(folder / "state.json", "_data_files")]:
        try:
            with arrow.memory_map(str(path)) as source, ipc.open_stream(source) as batches:
                for batch in batches:
                    yield from _column(batch, data.text_field, path)
        except (OSError, arrow.ArrowException) as error:
            message = f"{path} is no Arrow stream: {error}"
            raise InvalidInput.of("data.path", message, "save the dataset again") from None


def _column(batch: Any, field: str, path: Path) -> list[str]:
    """Returns the texts of a batch of rows."""
    if field not in batch.schema.names:
        raise _no_field(str(path), field, batch.schema.names)
    texts: list[Any] = batch.column(field).to_pylist()
    if not all(isinstance(text, str) for text in texts):
        message = f"{path}: not every {field} is a text"
        raise InvalidInput.of("data.text_field", message, "name a field that holds texts")
    return texts


def _arrow() -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.ipc")
    except ImportError:
        message = "a saved dataset needs pyarrow, which is not installed"
        raise InvalidInput.of("data.path", message, "pip install 'lmtune[datasets]'") from None


def _said(path: Path, key: str) -> list[str]:
    """Returns the names that one of a saved dataset's own files lists."""
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))[key]
        return [str(item["filename"] if isinstance(item, dict) else item) for item in listed]
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = "save the dataset again"
        raise InvalidInput.of("data.path", f"{path} cannot be read: {error!r}", remedy) from None
