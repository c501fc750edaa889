"""lmtune's own folder, and the YAML and JSON files that people write: studies and recipes."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Any, Final

import yaml

from studies.errors import InvalidInput

_MAX_BYTES: Final = 1 << 20  # of a study file or a recipe; assumption: people write less


def home() -> Path:
    """Returns the folder that holds the token, the database and the logs: LMTUNE_HOME."""
    return Path(os.environ.get("LMTUNE_HOME") or ".lmtune")


def read_document(path: Path) -> Any:
    """Returns what a YAML or JSON file says (JSON is YAML).

    Raises:
        InvalidInput: the file cannot be read, is no YAML, or says a key twice.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1).decode("utf-8")
    except OSError as error:
        raise InvalidInput.of(str(path), error.strerror or str(error), "name a file") from None
    except UnicodeDecodeError:
        raise InvalidInput.of(str(path), "is not UTF-8 text", "name a study file") from None
    if len(text) > _MAX_BYTES:
        raise InvalidInput.of(str(path), "is over 1 MiB", "name a study file, not a corpus")
    return parse_document(text, str(path))


def parse_document(text: str, where: str) -> Any:
    """Returns what a YAML or JSON text says; raises InvalidInput, which names it as `where`."""
    try:
        return yaml.load(text, Loader=_UniqueKeys)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date or number gone wrong
        raise InvalidInput.of(where, f"is not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise InvalidInput.of(where, "is nested too deep") from None


def catalog() -> dict[str, Path]:
    """Returns the ready studies: name to file."""
    folder = Path(str(resources.files("studies"))) / "catalog"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


class _UniqueKeys(yaml.SafeLoader):
    """The safe loader; a key written twice is an error rather than a silent choice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Returns the mapping; raises yaml.YAMLError for a repeated key."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | bool | None):
                raise yaml.YAMLError(f"a key must be a name, {key_node.start_mark}")
            if key in seen:
                raise yaml.YAMLError(f"the key {key!r} stands twice, {key_node.start_mark}")
            seen.add(key)
        return super().construct_mapping(node, deep)
