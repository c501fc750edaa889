"""The knob: one field of a recipe with its unit, bounds, default and source, as data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import Field, TypeAdapter
from pydantic.fields import FieldInfo

SectionName = Literal["data", "model", "train", "own"]  # own: a script's, no section of a file
_NUMBERS: Final = {"int": "an integer", "float": "a number", "list": "a list of texts"}


def knob(
    default: Any,
    meaning: str,
    *,
    unit: str = "",
    source: str = "",
    alias: str | None = None,
    searchable: bool = True,
    **bounds: Any,
) -> Any:
    """Returns a field that carries its row of the knob table."""
    row: dict[str, Any] = {"unit": unit, "source": source, "searchable": searchable}
    return Field(default, description=meaning, alias=alias, json_schema_extra=row, **bounds)


@dataclass(frozen=True)
class Knob:
    """One row of the knob table."""

    name: str  # as written in a study file
    section: SectionName
    meaning: str
    unit: str
    source: str
    default: Any
    annotation: Any  # the field's type
    metadata: tuple[Any, ...]  # and its bounds
    searchable: bool
    low: float | None  # inclusive unless `low_open`; None: unbounded or not a number
    high: float | None
    low_open: bool
    high_open: bool

    @property
    def kind(self) -> Literal["int", "float", "bool", "str", "name", "list"]:
        """What sort of value the knob holds; a name is one of its choices."""
        plain = _without_none(self.annotation)
        if get_origin(plain) is tuple:
            return "list"
        return plain.__name__ if plain in (int, float, bool, str) else "name"

    @property
    def choices(self) -> tuple[Any, ...] | None:
        """The values a named or boolean knob can take; None for others."""
        if self.kind == "bool":
            return (False, True)
        return get_args(_without_none(self.annotation)) if self.kind == "name" else None

    @property
    def domain(self) -> str:
        """What the knob may be, in words: "a number above 0, at most 1000000"."""
        if self.choices is not None:
            return "one of " + ", ".join(map(written, self.choices))
        parts = []
        if self.low is not None:
            parts.append(f"{'above' if self.low_open else 'at least'} {written(self.low)}")
        if self.high is not None:
            parts.append(f"{'below' if self.high_open else 'at most'} {written(self.high)}")
        return f"{_NUMBERS.get(self.kind, 'a text')} {', '.join(parts)}".strip()

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        return TypeAdapter(Annotated[self.annotation, self.name, *self.metadata])  # type: ignore[arg-type]

    def check(self, value: Any) -> Any:
        """Returns the value in the knob's own type; raises pydantic.ValidationError."""
        return self._adapter.validate_python(value)


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) not in (UnionType, Union):
        return annotation
    return next(part for part in get_args(annotation) if part is not NoneType)


def written(value: Any) -> str:
    """Returns a value as a study file writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e16:
        return str(int(value))
    if value == 2.0**63:
        return "2^63"
    return json.dumps(value) if isinstance(value, str) and "\n" in value else str(value)


def row(section: SectionName, field: str, info: FieldInfo) -> Knob:
    """Returns the knob that a field is; one not declared with `knob` has no unit and no source."""
    said = info.json_schema_extra
    extra: Mapping[str, Any] = said if isinstance(said, dict) else {}
    lows = [(m.ge if isinstance(m, Ge) else m.gt) for m in info.metadata if isinstance(m, Ge | Gt)]
    highs = [(m.le if isinstance(m, Le) else m.lt) for m in info.metadata if isinstance(m, Le | Lt)]
    return Knob(
        name=info.alias or field,
        section=section,
        meaning=info.description or "",
        unit=str(extra.get("unit", "")),
        source=str(extra.get("source", "")),
        default=info.default,
        annotation=info.annotation,
        metadata=tuple(info.metadata),
        searchable=bool(extra.get("searchable")),
        low=float(str(lows[0])) if lows else None,
        high=float(str(highs[0])) if highs else None,
        low_open=any(isinstance(m, Gt) for m in info.metadata),
        high_open=any(isinstance(m, Lt) for m in info.metadata),
    )
