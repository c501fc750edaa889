"""The search space: which knobs are searched, over what, and under which condition.

A study file writes one entry per knob, `learning_rate: {log: [1.0e-4, 1.0e-1]}`; `build` turns
the entries into typed parameters in an order where every condition stands before what it governs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from studies.errors import FieldError, InvalidInput
from studies.explain import near
from studies.knobs import Knob, row
from studies.recipe import KNOBS

_ROUNDING: Final = 1e-6  # of a range's length in steps: 0.5 / 0.1 is no integer in binary
_FEW: Final = 16  # whole numbers of a range that are all extremes
_OWN_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]{0,63}"
Scalar = bool | int | float | str


class Entry(BaseModel):
    """One line of a study's `search` section: exactly one of log, uniform and choice."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    log: tuple[float, float] | None = Field(None, description="[low, high], even in log scale")
    uniform: tuple[float, float] | None = Field(None, description="[low, high], even in value")
    choice: tuple[Scalar, ...] | None = Field(None, description="the values to choose from")
    step: float | None = Field(None, gt=0, description="distance of neighbours (uniform only)")
    points: int | None = Field(None, ge=2, description="points on the range (sampler grid only)")
    when: dict[str, Scalar | tuple[Scalar, ...]] | None = Field(
        None, description="searched only where these searched choices have one of these values"
    )


@dataclass(frozen=True)
class Param:
    """A searched knob; `when` maps a governing parameter to the values that activate this one."""

    name: str
    when: Mapping[str, tuple[Scalar, ...]] = field(default_factory=dict, kw_only=True)

    def active(self, values: Mapping[str, Any]) -> bool:
        """True when the values chosen so far activate this parameter."""
        return all(name in values and values[name] in ok for name, ok in self.when.items())

    def holds(self, value: Any) -> bool:
        """True for a value that is searched."""
        raise NotImplementedError


@dataclass(frozen=True)
class FloatParam(Param):
    """A real range [low, high], both ends included."""

    low: float
    high: float
    log: bool = False
    step: float | None = None
    points: int | None = None  # grid only

    def holds(self, value: Any) -> bool:
        """True between the ends; of steps it knows nothing."""
        return self.low <= float(value) <= self.high


@dataclass(frozen=True)
class IntParam(Param):
    """An integer range [low, high], both ends included."""

    low: int
    high: int
    log: bool = False
    step: int = 1
    points: int | None = None  # grid only

    def holds(self, value: Any) -> bool:
        """True between the ends; of steps it knows nothing."""
        return self.low <= float(value) <= self.high


@dataclass(frozen=True)
class CategoricalParam(Param):
    """A list of distinct values without order."""

    choices: tuple[Scalar, ...]

    def holds(self, value: Any) -> bool:
        """True for one of the choices."""
        return value in self.choices


@dataclass(frozen=True)
class SearchSpace:
    """The searched parameters; a parameter stands after all that govern it."""

    params: tuple[Param, ...] = ()

    def __iter__(self) -> Iterator[Param]:
        return iter(self.params)

    def __len__(self) -> int:
        return len(self.params)

    @property
    def names(self) -> tuple[str, ...]:
        """The searched knobs' names, in order."""
        return tuple(param.name for param in self.params)

    @property
    def conditional(self) -> bool:
        """True when some parameter is searched only under a condition."""
        return any(param.when for param in self.params)

    def holds(self, values: Mapping[str, Any]) -> bool:
        """True where each value lies in what is searched: a space may have been narrowed since."""
        return all(p.holds(values[p.name]) for p in self.params if p.name in values)


def extremes(param: Param) -> Sequence[Any]:
    """Returns the choices, the ends of a range, or all of a short one of whole numbers."""
    if isinstance(param, CategoricalParam):
        return param.choices
    assert isinstance(param, FloatParam | IntParam)  # noqa: S101 - the only other kinds
    if isinstance(param, IntParam) and not param.log:
        points = range(param.low, param.high + 1, param.step)
        return points if len(points) <= _FEW else (param.low, points[-1])
    return (param.low, param.high)


def build(entries: Mapping[str, Entry], own_names: bool = False) -> SearchSpace:
    """Returns the space that the entries describe.

    Args:
        entries: by name.
        own_names: names that are no knobs are a script's own.

    Raises:
        InvalidInput: with one error per wrong entry, each naming the field and the remedy.
    """
    errors: list[FieldError] = []
    params: dict[str, Param] = {}
    for name, entry in entries.items():
        try:
            params[name] = _param(name, entry, own_names)
        except InvalidInput as error:
            errors += error.errors
    for param in params.values():
        errors += _condition_errors(param, params)
    if errors:
        raise InvalidInput(errors)
    return SearchSpace(_ordered(params))


def knob_of(param: Param) -> Knob:
    """Returns the knob that a parameter moves; a script's own name has the bounds of its entry."""
    annotation = {FloatParam: float, IntParam: int}.get(type(param), Scalar)
    return KNOBS.get(param.name) or _own(param.name, annotation)


def _own(name: str, annotation: Any) -> Knob:
    info = FieldInfo(annotation=annotation, json_schema_extra={"searchable": True})
    return row("own", name, info)


def _own_knob(name: str, entry: Entry) -> Knob:
    """Returns the knob of a script's own name: an integer where ends and step are whole."""
    numbers = (*(entry.log or entry.uniform or ()), entry.step)
    whole = all(number is not None and number == int(number) for number in numbers)
    kind: Any = Scalar if entry.choice is not None else int if whole else float
    if not re.fullmatch(_OWN_NAME, name):
        remedy = "letters, digits and _, at most 64, no digit first"
        raise InvalidInput.of(f"search.{name}", "is no name", remedy)
    return _own(name, kind)


def _param(name: str, entry: Entry, own_names: bool) -> Param:
    where = f"search.{name}"
    knob = KNOBS.get(name) or (_own_knob(name, entry) if own_names else None)
    if knob is None or not knob.searchable:
        names = [k.name for k in KNOBS.values() if k.searchable]
        message = "there is no such knob" if knob is None else "this knob cannot be searched"
        raise InvalidInput.of(where, message, near(name, names) or "see docs/search-space.md")
    given = [kind for kind in ("log", "uniform", "choice") if getattr(entry, kind) is not None]
    if len(given) != 1:
        raise InvalidInput.of(where, "needs exactly one of log, uniform and choice")
    when = {
        other: values if isinstance(values, tuple) else (values,)
        for other, values in (entry.when or {}).items()
    }
    if entry.choice is not None:
        return _categorical(where, knob, entry, when)
    return _range(where, knob, entry, when, "log" if entry.log is not None else "uniform")


def _categorical(
    where: str, knob: Knob, entry: Entry, when: dict[str, tuple[Scalar, ...]]
) -> CategoricalParam:
    assert entry.choice is not None  # noqa: S101 - the caller looked
    if entry.step is not None or entry.points is not None:
        raise InvalidInput.of(where, "step and points belong to a range, not to a choice")
    values = tuple(_checked(f"{where}.choice", knob, value) for value in entry.choice)
    if not values or len(set(values)) < len(values):
        raise InvalidInput.of(f"{where}.choice", "needs at least one value, all distinct")
    return CategoricalParam(knob.name, values, when=when)


def _range(
    where: str,
    knob: Knob,
    entry: Entry,
    when: dict[str, tuple[Scalar, ...]],
    kind: Literal["log", "uniform"],
) -> Param:
    bounds: tuple[float, float] = getattr(entry, kind)
    where = f"{where}.{kind}"
    if knob.kind not in ("int", "float"):
        raise InvalidInput.of(
            where,
            "this knob is not a number",
            f"choice: [{', '.join(map(str, knob.choices or []))}]",
        )
    if kind == "log" and bounds[0] <= 0:
        raise InvalidInput.of(
            where, f"a log range must start above 0, not at {bounds[0]:g}", "raise the lower bound"
        )
    if bounds[0] >= bounds[1]:
        raise InvalidInput.of(
            where,
            f"the lower bound {bounds[0]:g} is not below the upper bound {bounds[1]:g}",
            f"write {kind}: [{bounds[1]:g}, {bounds[0]:g}]"
            if bounds[0] > bounds[1]
            else f"fix the knob under `{knob.section}:` instead",
        )
    if kind == "log" and entry.step is not None:
        raise InvalidInput.of(where, "step belongs to a uniform range")
    low, high = (_checked(where, knob, bound) for bound in bounds)
    _check_step(where, low, high, entry.step)
    if knob.kind == "float":
        return FloatParam(knob.name, low, high, kind == "log", entry.step, entry.points, when=when)
    step = entry.step if entry.step is not None else 1
    if step != int(step):
        raise InvalidInput.of(where, f"the step of an integer knob is an integer, not {step:g}")
    return IntParam(knob.name, low, high, kind == "log", int(step), entry.points, when=when)


def _check_step(where: str, low: float, high: float, step: float | None) -> None:
    """Raises unless the upper bound is a whole number of steps above the lower one."""
    if step is None:
        return
    steps = (high - low) / step
    if round(steps) < 1 or abs(steps - round(steps)) > _ROUNDING:
        last = low + step * max(int(steps), 1)
        raise InvalidInput.of(
            where, f"no whole number of steps of {step:g}", f"end the range at {last:g}"
        )


def _checked(where: str, knob: Knob, value: Any) -> Any:
    try:
        return knob.check(value)
    except ValidationError:
        raise InvalidInput.of(where, f"{value!r} does not fit", f"give {knob.domain}") from None


def _condition_errors(param: Param, params: Mapping[str, Param]) -> Iterator[FieldError]:
    for other, values in param.when.items():
        where = f"search.{param.name}.when.{other}"
        governor = params.get(other)
        if not isinstance(governor, CategoricalParam):
            yield FieldError(where, "is not a searched choice", "search it with `choice`")
        elif unknown := [value for value in values if value not in governor.choices]:
            yield FieldError(where, f"{unknown[0]!r} is not among its choices")
        elif _governs(param.name, other, params):
            yield FieldError(where, "the conditions go round in a circle", "remove one `when`")


def _governs(name: str, other: str, params: Mapping[str, Param]) -> bool:
    """True when `name` stands somewhere among the conditions of `other`."""
    seen: set[str] = set()
    todo = [other]
    while todo:
        here = todo.pop()
        if here == name:
            return True
        if here in params and here not in seen:
            seen.add(here)
            todo += params[here].when
    return False


def _ordered(params: Mapping[str, Param]) -> tuple[Param, ...]:
    """Returns the parameters in the file's order, each after those that govern it."""
    done: dict[str, Param] = {}

    def place(param: Param) -> None:
        for other in param.when:
            place(params[other])
        done.setdefault(param.name, param)

    for param in params.values():
        place(param)
    return tuple(done.values())
