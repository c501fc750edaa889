"""Studies that are being written: their form, and what the server says of a draft."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from service.dispatch.draft import draft
from service.routes.dashboard import not_found, page
from service.routes.parts import Lmtune
from service.routes.reading import Read
from studies.drafts import DraftBody, DraftView
from studies.errors import InvalidInput, NotFound
from studies.files import catalog, parse_document, read_document
from studies.knobs import Knob, row
from studies.parts import Budget, Objective, Resources, Sampler, Scheduler
from studies.recipe import KNOBS

_TEXTS: Final = ("builtin", "path", "sha256")  # a text is chosen, not written
_TITLES: Final = {
    "model": "Model",
    "train": "Training",
    "data": "Tokens and splits",
    "own": "A script's own names",
    "sampler": "Sampler",
    "scheduler": "Scheduler",
    "objective": "Objective",
    "resources": "Resources",
}
_PARTS: Final[dict[str, type[BaseModel]]] = {
    "sampler": Sampler,
    "scheduler": Scheduler,
    "objective": Objective,
    "resources": Resources,
    "budget": Budget,
}
_SEARCHED: Final = ("log", "uniform", "choice")
_NEW: Final[dict[str, Any]] = {
    "data": {"builtin": "stdlib"},
    "search": {"learning_rate": {"log": [1e-4, 1e-1]}},
    "budget": {"trials": 16},
}

api = APIRouter(prefix="/api/v1", tags=["studies"])
pages = APIRouter(include_in_schema=False)


@api.post("/drafts")
def check_draft(body: DraftBody, lmtune: Lmtune) -> DraftView:
    """Checks a study without making it; answers with its file, its values and its cost."""
    if (body.spec is None) == (body.yaml is None):
        raise InvalidInput.of("spec", "give exactly one of spec and yaml")
    said: Any = body.spec if body.yaml is None else parse_document(body.yaml, "yaml")
    return draft(lmtune.ctx, said)


@pages.get("/new")
def new_study(
    request: Request, read: Read, like: str | None = None, ready: str | None = None
) -> Response:
    """Returns the form of a new study: empty, like another one, or a ready one."""
    try:
        document: dict[str, Any] = read.study(like).spec if like else _ready(ready)
    except NotFound as error:
        return not_found(request, error)
    context = {
        "document": document,
        "from_": like or ready,
        "ready": list(catalog()),
        "texts": read.data(),
        "text": {name: document["data"][name] for name in _TEXTS if document["data"].get(name)},
        "sections": {name: list(fields(name, document)) for name in _TITLES},
        "own_name": _own("{name}", {}),  # the browser makes further ones of it
        "titles": _TITLES,
        "budget": list(fields("budget", document)),
    }
    return page(request, "new.html", context)


@dataclass(frozen=True)
class Field:
    """A field of the form: a knob or a field of a part, and what the document says of it.

    Attributes:
        path: as errors name it.
        knob: what may stand there.
        value: as it is written; empty where the document leaves it out.
        entry: what is searched of it, if anything.
    """

    path: str
    knob: Knob
    value: str
    entry: Mapping[str, Any] | None

    @property
    def own(self) -> bool:
        """True for a name that only a script knows: left out, it is the script's to choose."""
        return self.knob.section == "own" and self.knob.searchable

    @property
    def whole(self) -> bool:
        """True where its values are integers: of a script's own name where ends and step are."""
        if not self.own:
            return self.knob.kind == "int"
        numbers = (*self.ends, (self.entry or {}).get("step") or 0.5)
        return all(number == int(number) for number in numbers)

    @property
    def mode(self) -> str:
        """Whether the knob is fixed, or how it is searched."""
        return next((kind for kind in _SEARCHED if (self.entry or {}).get(kind)), "fixed")

    @property
    def modes(self) -> list[str]:
        """What the reader may choose of it."""
        numbers = ["log", "uniform"] if self.knob.kind in ("int", "float") else []
        return ["fixed", *numbers, "choice"] if self.knob.searchable else []

    @property
    def ends(self) -> tuple[Any, Any]:
        """The range that is searched, or one around the default to begin with."""
        known = (self.entry or {}).get(self.mode)
        if known and self.mode != "choice":
            return known[0], known[1]
        return _around(self.knob)

    @property
    def choices(self) -> str:
        """The choices that are searched, or all there are, as JSON without brackets."""
        known = (self.entry or {}).get("choice") or self.knob.choices or ()
        return ", ".join(json.dumps(value) for value in known)

    @property
    def extras(self) -> dict[str, str]:
        """What else an entry may say, each as JSON: of numbers also their step and points."""
        entry = self.entry or {}
        names = ("step", "points", "when") if "log" in self.modes else ("when",)
        said = {name: entry.get(name) for name in names}
        return {name: "" if value is None else json.dumps(value) for name, value in said.items()}


def _around(knob: Knob) -> tuple[float, float]:
    """Returns a range to begin with: a tenth of the default to ten times it, within the bounds."""
    if knob.default == 0:  # λ and dropout: little of them does much
        low, high = (0.01, 0.5) if knob.high == 1 else (1e-8, 1e-2)
    else:
        default = float(knob.default or 0.1)
        low, high = max(default / 10, knob.low or 0.0), default * 10
        if knob.high is not None and high >= knob.high:
            high = (default + knob.high) / 2 if knob.high_open else knob.high
    if knob.kind == "int":
        return max(1, round(low)), max(10, round(high))
    return float(f"{low:.3g}"), float(f"{high:.4g}")


def _own(name: str, entry: Mapping[str, Any]) -> Field:
    """Returns the field of a script's own name: a range of numbers or choices of any kind."""
    info = FieldInfo(annotation=float, default=None, json_schema_extra={"searchable": True})
    return Field(f"search.{name}", row("own", name, info), "", entry)


def fields(section: str, document: Mapping[str, Any]) -> Iterator[Field]:
    """Yields the fields of a section of a study file, as a document has them."""
    said, searched = document.get(section, {}), document.get("search", {})
    if section == "own":
        yield from (_own(name, entry) for name, entry in searched.items() if name not in KNOBS)
        return
    if section in _PARTS:
        for name, info in _PARTS[section].model_fields.items():
            yield Field(f"{section}.{name}", row("own", name, info), _written(said, name), None)
        return
    for knob in KNOBS.values():
        if knob.section == section and knob.name not in _TEXTS:
            path = f"{section}.{knob.name}"
            yield Field(path, knob, _written(said, knob.name), searched.get(knob.name))


def _written(said: Mapping[str, Any], name: str) -> str:
    value = said.get(name)
    plain = isinstance(value, str)
    return "" if value is None else value if plain else json.dumps(value)


def _ready(name: str | None) -> dict[str, Any]:
    """Returns a ready study, or what a new one begins with; raises NotFound."""
    if name is None:
        return _NEW
    if name not in catalog():
        raise NotFound(f"no ready study is named {name!r}")
    document = read_document(catalog()[name])
    assert isinstance(document, dict)  # noqa: S101 - a test reads each
    return document


router = APIRouter()
for part in (api, pages):
    router.include_router(part)
