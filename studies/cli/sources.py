"""Where studies come from: files and the catalog; each is checked before anything is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from studies.cli.output import warn
from studies.corpus import check_corpus
from studies.documents import resolve
from studies.errors import InvalidInput, NotFound
from studies.explain import near
from studies.files import catalog, read_document
from studies.idle import idle
from studies.spec import StudySpec, parse_spec

_NAMES_A_TEXT: Final = ("builtin", "path", "sha256", "validation_at", "test_at")


@dataclass(frozen=True)
class Source:
    """A checked study; its `data.path` is relative to the folder `base`."""

    spec: StudySpec
    base: Path

    @property
    def sent(self) -> dict[str, Any]:
        """The study as the server keeps it: a text is named by its hash and cuts."""
        spec = self.spec
        if spec.data.path is not None:
            spec = spec.model_copy(update={"data": resolve(spec.data, self.base)[0]})
        return spec.model_dump(mode="json", by_alias=True)

    def named(self, name: str) -> Source:
        """Returns the same study under another name."""
        return Source(self.spec.model_copy(update={"name": name}), self.base)


def open_source(study: str, data: Path | None = None) -> Source:
    """Returns the study in a file or in the catalog, with its text checked; says what is idle.

    Args:
        study: a path, or the name of a catalog study where no such file exists.
        data: a text that takes the place of the study's own.

    Raises:
        InvalidInput: one FieldError for each wrong field, the text's included.
    """
    path = Path(study)
    if not path.exists() and study in catalog():
        path = catalog()[study]
    document = read_document(path)
    if data is not None and isinstance(document, Mapping):
        document = _with_text(document, data)
    source = Source(parse_spec(document), path.parent)
    check_text(source)
    for notice in idle(source.spec):
        warn(f"note: {notice}")
    return source


def catalog_file(name: str) -> Path:
    """Returns a ready study's file; raises NotFound, with the nearest name."""
    known = catalog()
    if name not in known:
        hint = near(name, known) or f"there are {', '.join(known)}"
        raise NotFound(f"no ready study is named {name!r} ({hint})")
    return known[name]


def _with_text(document: Mapping[str, Any], data: Path) -> dict[str, Any]:
    section = document.get("data")
    kept = section if isinstance(section, Mapping) else {}
    others = {k: v for k, v in kept.items() if k not in _NAMES_A_TEXT}
    return {**document, "data": {"path": str(data.absolute()), **others}}


def check_text(source: Source) -> None:
    """Raises InvalidInput unless the text is there, is text, and is long enough."""
    spec = source.spec
    if spec.data.sha256 is not None:
        return  # the server has it, and checks it
    path = source.base / (spec.data.path or "")
    if not path.exists():
        remedy = "correct it, or give another text with --data FILE"
        raise InvalidInput.of("data.path", f"{path}: no such file", remedy)
    data, text = resolve(spec.data, source.base)
    check_corpus(text, spec.model_copy(update={"data": data}).neediest())
