"""Figures over HTTP: plotly JSON, drawn again only when the study has changed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from threading import Lock
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response

from service.dispatch.reading import Reading
from service.figures import FIGURES, StudyData, trial_curve
from service.figures.data import Point
from service.routes.reading import Read
from studies import wire
from studies.errors import NotFound
from studies.spec import StudySpec

_LOSSES: Final = ("validation_loss", "train_loss")  # one unit, so they share an axis
_ONE_AT_A_TIME: Final = Lock()  # a page asks for all its figures at once: read the study once
_JSON: Final = "application/json"
_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "A plotly figure", "content": {_JSON: {"schema": {"type": "object"}}}},
    304: {"description": "The study has not changed"},
}

router = APIRouter(prefix="/api/v1/studies/{name}", tags=["figures"])
Columns = Annotated[int, Query(ge=1, le=8, description="panels side by side")]


@router.get("/figures")
def list_figures(name: str, read: Read) -> dict[str, str]:
    """Returns the kinds of figures and their titles."""
    read.study(name)
    return {kind: spec.title for kind, spec in FIGURES.items()}


@router.get("/figures/{kind}", response_class=Response, responses=_ANSWERS)
def get_figure(
    name: str, kind: str, request: Request, read: Read, columns: Columns = 4
) -> Response:
    """Returns a figure of the study as plotly JSON; 304 while the study has not changed."""
    if kind not in FIGURES:
        raise NotFound(f"there is no figure {kind!r}; there are {', '.join(FIGURES)}")
    revision, reports = read.stamp(name)
    headers = {"ETag": f'"{revision}-{reports}-{columns}"', "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    with _ONE_AT_A_TIME:
        data = _study_data(read, name, (revision, reports))
    return Response(FIGURES[kind].json(data, columns), media_type=_JSON, headers=headers)


@router.get("/trials/{number}/figure", response_class=Response, responses={200: _ANSWERS[200]})
def get_trial_figure(name: str, number: int, read: Read) -> Response:
    """Returns the trial's learning curve as plotly JSON."""
    trial = read.trial(name, number)
    metric = StudySpec.model_validate(read.study(name).spec).objective.metric
    metrics = _LOSSES if metric in _LOSSES else (metric,)
    baseline = read.baseline(name) if "validation_loss" in metrics else None
    curves = {metric: _points(trial.curve, metric) for metric in metrics}
    figure = trial_curve({metric: points for metric, points in curves.items() if points}, baseline)
    return Response(figure.to_json(), media_type=_JSON, headers={"Cache-Control": "no-cache"})


@lru_cache(maxsize=16)
def _study_data(read: Reading, name: str, stamp: tuple[int, int]) -> StudyData:
    """Returns the study as it was at the stamp, or later."""
    spec = StudySpec.model_validate(read.study(name).spec)
    loss = spec.objective.metric == "validation_loss"
    return StudyData(
        trials=read.trial_data(name),
        space=spec.space,
        metric=spec.objective.metric,
        direction=spec.objective.direction,
        baseline=read.baseline(name) if loss else None,
        importances=read.importances(name),
    )


def _points(curve: Sequence[wire.Point], metric: str) -> list[Point]:
    return [(p.step, p.metrics[metric]) for p in curve if metric in p.metrics]
