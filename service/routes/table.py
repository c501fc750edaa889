"""The table of a study's trials, sorted and cut on the server: a page never holds all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query

from service.figures import StudyData, TrialData
from service.figures.brushes import within
from service.figures.data import finite
from service.routes.brushing import Brushes
from service.routes.reading import Read
from studies import wire
from studies.trial import TrialState

router = APIRouter(prefix="/api/v1/studies/{name}", tags=["figures"])
Limit = Annotated[int, Query(ge=1, le=1_000)]
Sort = Annotated[
    str, Query(description="number, state, value, step, took, or `param NAME` for a searched knob")
]
_KEYS: Final[dict[str, Callable[[TrialData], Any]]] = {
    "number": lambda trial: trial.number,
    "state": lambda trial: trial.state.value,
    "value": lambda trial: finite(trial.value),
    "step": lambda trial: trial.step,
    "took": lambda trial: took(trial),
}


class TableRow(wire.View):
    """A trial as the table shows it."""

    number: int
    state: TrialState
    value: float | None
    step: int
    max_step: int
    params: dict[str, Any]
    started_at: datetime | None
    ended_at: datetime | None
    best: bool


class Table(wire.View):
    """The first rows, how many trials are of the wanted state, and how many there are."""

    rows: list[TableRow]
    matching: int
    total: int


@dataclass(frozen=True)
class Wanted:
    """Which trials are shown."""

    state: TrialState | None = None
    brush: Brushes = ()

    def of(self, study: StudyData) -> list[TrialData]:
        """Returns those trials, by number."""
        found = within(study, self.brush)
        return [t for t in found if self.state is None or t.state is self.state]


@router.get("/table")
def get_table(
    name: str,
    read: Read,
    wanted: Annotated[Wanted, Depends()],
    sort: Sort = "number",
    down: bool = True,
    limit: Limit = 50,
) -> Table:
    """Returns the first trials in an order; those that lack what they are sorted by come last."""
    study = read.watch.snapshot(name).data
    found, best = wanted.of(study), study.best
    return Table(
        rows=[_row(trial, trial is best) for trial in in_order(found, sort, down)[:limit]],
        matching=len(found),
        total=len(study.trials),
    )


def in_order(trials: list[TrialData], sort: str, down: bool) -> list[TrialData]:
    """Returns the trials sorted; by number where `sort` names nothing."""
    key = _KEYS.get(sort, _KEYS["number"])
    if sort.startswith("param "):
        knob = sort.removeprefix("param ")
        key = lambda trial: trial.params.get(knob)  # noqa: E731 - one of _KEYS, for any knob
    keyed = [(key(trial), trial) for trial in trials]
    known = [(_comparable(value), trial) for value, trial in keyed if value is not None]
    known.sort(key=lambda pair: pair[0], reverse=down)
    return [trial for _, trial in known] + [trial for value, trial in keyed if value is None]


def took(trial: TrialData) -> float | None:
    """Returns the time from the first grant to the end [s]; None before that."""
    if trial.started is None or trial.ended is None:
        return None
    return (trial.ended - trial.started).total_seconds()


def _comparable(value: Any) -> tuple[bool, Any]:
    """Returns what sorts numbers before text."""
    text = isinstance(value, str)
    return text, value if text else float(value)


def _row(trial: TrialData, best: bool) -> TableRow:
    return TableRow(
        number=trial.number,
        state=trial.state,
        value=finite(trial.value),
        step=trial.step,
        max_step=trial.max_step,
        params=dict(trial.params),
        started_at=trial.started,
        ended_at=trial.ended,
        best=best,
    )
