"""Pydantic's errors in lmtune's words: the field, what is wrong with it, and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel

from studies.errors import FieldError
from studies.recipe import KNOBS

_UNION_TAGS: Final = ("bool", "int", "float", "str")  # pydantic's names of a scalar's kinds
_NO_MAPPING: Final = ("model_type", "model_attributes_type", "dict_type")
_EXAMPLES: Final = {  # of what stands at a path, by the path's length and head
    ("search", 1): "write `search: {learning_rate: {log: [1.0e-4, 1.0e-1]}}`",
    ("search", 2): "write {log: [LOW, HIGH]}, {uniform: [LOW, HIGH]} or {choice: [A, B]}",
    ("data", 1): "write `data: {builtin: stdlib}` or `data: {path: FILE}`",
}


def field_errors(errors: Iterable[Any], root: type[BaseModel]) -> list[FieldError]:
    """Returns one FieldError for each wrong field.

    Args:
        errors: as `ValidationError.errors()` gives them.
        root: the model that was validated; names near an unknown one are looked up in it.
    """
    found: dict[str, FieldError] = {}
    for error in errors:
        said = _field_error(error, root)
        found.setdefault(said.field, said)
    return list(found.values())


def near(name: str, names: Iterable[str]) -> str:
    """Returns "did you mean X?" for the nearest of the names, or nothing."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"did you mean {close[0]}?" if close else ""


def _field_error(error: Mapping[str, Any], root: type[BaseModel]) -> FieldError:
    inner = error.get("ctx", {}).get("error")
    if isinstance(inner, ValueError) and inner.args and isinstance(inner.args[0], FieldError):
        return inner.args[0]
    path = [str(part) for part in error["loc"] if part != "body" and part not in _UNION_TAGS]
    return FieldError(".".join(path) or "study", *_said(error, path, root))


def _said(error: Mapping[str, Any], path: list[str], root: type[BaseModel]) -> tuple[str, str]:
    """Returns what is wrong at the path, and the remedy."""
    kind, text = error["type"], str(error["msg"]).removeprefix("Value error, ")
    shown = repr(error.get("input"))[:100]
    if kind == "extra_forbidden":
        return "there is no such field", _elsewhere(path, root)
    if kind == "missing":
        return "is missing", "add it"
    if kind in _NO_MAPPING:
        return f"{shown} is not a mapping", _EXAMPLES.get((path[0] if path else "", len(path)), "")
    if kind == "string_pattern_mismatch" and path == ["name"]:
        return f"{shown} is no name", "1 to 64 of A-Z a-z 0-9 . - _"
    if path[:1] == ["search"] and "choice" in path:
        return f"{shown} is not a plain value", "use numbers, names, true or false"
    if kind == "value_error":
        return text, ""
    knob = KNOBS.get(path[-1]) if len(path) == 2 else None
    if knob is not None and knob.section == path[0]:
        return f"{shown} does not fit", f"give {knob.domain}"
    return f"{shown}: {text[:1].lower()}{text[1:]}", ""


def _elsewhere(path: Sequence[str], root: type[BaseModel]) -> str:
    """Returns where an unknown field belongs, or the known one nearest to it."""
    knob = KNOBS.get(path[-1])
    if knob is not None and "search" not in path:
        return f"{knob.name} belongs under `{knob.section}:`"
    here: Any = root
    for part in path[:-1]:
        here = _inside(here, part)
    fields = here.model_fields.items() if here is not None else ()
    return near(path[-1], [info.alias or name for name, info in fields])


def _inside(model: Any, part: str) -> Any:
    """Returns the model of a field, or of the values of a field that maps names to models."""
    if model is None:
        return None
    if get_origin(model) is dict:
        return _model(get_args(model)[1])
    info = model.model_fields.get(part)
    if info is not None and get_origin(info.annotation) is dict:
        return info.annotation
    return _model(info.annotation) if info is not None else None


def _model(annotation: Any) -> Any:
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation if is_model else None
