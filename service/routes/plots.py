"""Figures over HTTP: plotly JSON, drawn again only when the study has changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from threading import Lock
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Query, Request, Response

from service.dispatch.reading import Reading
from service.figures import FIGURES, Options, trial_curve
from service.figures.brushes import brushed
from service.figures.data import AttemptData, Point
from service.routes.brushing import Brushes
from service.routes.reading import Read
from studies import wire
from studies.errors import NotFound
from studies.spec import StudySpec

_LOSSES: Final = ("validation_loss", "train_loss")  # one unit, so they share an axis
_FIRST: Final = ("history", "curves", "importances")  # above the fold of a laptop
_ONE_AT_A_TIME: Final = Lock()  # a page asks for all its figures at once, and so do its readers
JSON: Final = "application/json"
ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "A plotly figure", "content": {JSON: {"schema": {"type": "object"}}}},
    304: {"description": "The study has not changed"},
}

router = APIRouter(prefix="/api/v1/studies/{name}", tags=["figures"])
Columns = Annotated[int, Query(ge=1, le=8, description="panels side by side")]
Axis = Annotated[
    Literal["step", "tokens", "seconds"], Query(description="what learning curves are drawn over")
]


@dataclass(frozen=True)
class Asked:
    """How a figure is to be drawn, and of which trials."""

    columns: Columns = 4
    x: Axis = "step"
    brush: Brushes = ()


@router.get("/figures")
def list_figures(name: str, read: Read) -> dict[str, str]:
    """Returns the kinds of figures and their titles."""
    read.study(name)
    return {kind: spec.title for kind, spec in FIGURES.items()}


@router.get("/figures/{kind}", response_class=Response, responses=ANSWERS)
def get_figure(
    name: str, kind: str, request: Request, read: Read, asked: Annotated[Asked, Depends()]
) -> Response:
    """Returns a figure of the study as plotly JSON; 304 while the study has not changed.

    With brushes it shows the trials within all of them alone.
    """
    if kind not in FIGURES:
        raise NotFound(f"there is no figure {kind!r}; there are {', '.join(FIGURES)}")
    options = FIGURES[kind].chosen(Options(asked.columns, asked.x))
    with _ONE_AT_A_TIME:
        version = _version(read, name, kind)
        tag = f'"{version}-{options.columns}-{options.x}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        figure = _drawn(read, name, kind, options, version, tuple(asked.brush))
    return Response(figure, media_type=JSON, headers=headers)


def warm(read: Reading, name: str) -> None:
    """Draws what the first reader of a study's page sees first, so that they need not wait."""
    for kind in _FIRST:
        with _ONE_AT_A_TIME:
            _drawn(read, name, kind, Options(), _version(read, name, kind), ())


def _version(read: Reading, name: str, kind: str) -> str:
    revision, report = read.watch.snapshot(name).cursor
    return f"{revision}-{report}" if FIGURES[kind].grows else f"{revision}"


@router.get("/trials/{number}/figure", response_class=Response, responses={200: ANSWERS[200]})
def get_trial_figure(name: str, number: int, read: Read) -> Response:
    """Returns the trial's learning curve as plotly JSON, with a line where an attempt went on."""
    trial = read.trial(name, number)
    metric = StudySpec.model_validate(read.study(name).spec).objective.metric
    metrics = _LOSSES if metric in _LOSSES else (metric,)
    baseline = read.watch.baseline(name) if "validation_loss" in metrics else None
    curves = {metric: points(trial.curve, metric) for metric in metrics}
    curves = {metric: found for metric, found in curves.items() if found}
    figure = trial_curve(curves, baseline, [_attempt(number, one) for one in trial.attempts])
    return Response(figure.to_json(), media_type=JSON, headers={"Cache-Control": "no-cache"})


@lru_cache(maxsize=64)
def _drawn(
    read: Reading,
    name: str,
    kind: str,
    options: Options,
    version: str,
    brushes: tuple[str, ...],
) -> str:
    """Returns the figure of the study as it was at the version, or later."""
    data = read.watch.snapshot(name).data
    if FIGURES[kind].ranks:
        data = replace(data, importances=read.watch.importances(name, brushes))
    if FIGURES[kind].attempts:
        data = replace(data, attempts=read.watch.attempts(name))
    if FIGURES[kind].loads:
        data = replace(data, loads=read.watch.loads(name))
    return FIGURES[kind].json(brushed(data, brushes), options)


def _attempt(number: int, view: wire.AttemptView) -> AttemptData:
    return AttemptData(
        number=number,
        attempt=view.attempt,
        worker=view.worker,
        started=view.started_at,
        ended=view.ended_at,
        outcome=view.outcome,
        start_step=view.start_step,
    )


def points(curve: Sequence[wire.Point], metric: str) -> list[Point]:
    """Returns (step, value) of the points that have the metric."""
    return [(p.step, p.metrics[metric]) for p in curve if metric in p.metrics]
