"""Contour: the objective over the two numbers that matter most, as means of cells.

Optuna's contour of 10,000 trials is 600 MB of JSON (measured); a grid of means is a few KB, and
says no more than the trials do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import plotly.graph_objects as go

from service.figures import style
from service.figures.data import StudyData, TrialData, shown, window
from service.figures.scale import place_of, value_at
from service.figures.slices import axis_of
from studies.space import FloatParam, IntParam
from studies.trial import TrialState

CELLS: Final = (4, 24)  # along an axis, at least and at most; assumption: fine enough to read
_DOTS: Final = 400  # trials that are drawn over it
Number = FloatParam | IntParam


@dataclass(frozen=True)
class Grid:
    """The means over the cells of two knobs.

    Attributes:
        x: the knob along, and y the one up.
        y: see x.
        xs: the middles of the cells along, ys of those up.
        ys: see xs.
        means: by row from below, then along; None where no trial was.
        dots: (x, y, trial number) of some of the trials.
        best: the best trial, if it is among them.
    """

    x: Number
    y: Number
    xs: list[float]
    ys: list[float]
    means: list[list[float | None]]
    dots: list[tuple[float, float, int]]
    best: tuple[float, float, int] | None


def contour_data(study: StudyData) -> Grid | None:
    """Returns the grid of the two most important numbers; None where there are no two."""
    ranked = sorted(study.space, key=lambda p: -study.importances.get(p.name, 0.0))
    x, y, *_ = *(p for p in ranked if isinstance(p, FloatParam | IntParam)), None, None
    if x is None or y is None:
        return None
    trials = shown(study, lambda t: _belongs(study, t, x, y))
    if not trials:
        return None
    count = min(max(int(math.sqrt(len(trials))), CELLS[0]), CELLS[1])
    found: dict[tuple[int, int], list[float]] = {}
    for trial in trials:
        cell = _cell(y, trial, count), _cell(x, trial, count)
        found.setdefault(cell, []).append(trial.score or 0.0)
    middles = [(i + 0.5) / count for i in range(count)]
    best = study.best
    return Grid(
        x=x,
        y=y,
        xs=[value_at(x, part) for part in middles],
        ys=[value_at(y, part) for part in middles],
        means=[[_mean(found.get((row, at), ())) for at in range(count)] for row in range(count)],
        dots=[_dot(trial, x, y) for trial in trials[:: math.ceil(len(trials) / _DOTS)]],
        best=_dot(best, x, y) if best in trials and best is not None else None,
    )


def contour(study: StudyData) -> go.Figure:
    """Returns the contour."""
    data = contour_data(study)
    figure = style.figure(380)
    if data is None:
        return style.note(figure, "Known once trials with two searched numbers are complete")
    span = window((z for row in data.means for z in row if z is not None), study.direction)
    low, high = span or (None, None)
    trace = go.Contour(
        name=style.label(study.metric), x=data.xs, y=data.ys, z=data.means, zmin=low, zmax=high
    )
    figure.add_trace(
        trace.update(
            connectgaps=True,
            colorscale="Blues",
            reversescale=study.direction == "minimize",
            contours={"coloring": "heatmap", "showlines": False},
            hovertemplate="%{x:.3g}, %{y:.3g}<br>mean %{z:.4g}<extra></extra>",
        )
    )
    figure.add_trace(_points("complete", "trials", data.dots, size=4))
    if data.best:
        figure.add_trace(_points("best", "best", [data.best], size=14))
    figure.update_xaxes(title={"text": data.x.name}, **axis_of(data.x))
    figure.update_yaxes(title={"text": data.y.name}, **axis_of(data.y))
    return figure


def _points(role: str, name: str, dots: Sequence[tuple[float, float, int]], size: int) -> go.Figure:
    x, y, numbers = ([dot[part] for dot in dots] for part in range(3))
    hover = "trial %{customdata}<br>%{x:.3g}, %{y:.3g}<extra></extra>"
    trace = style.dots(role, name, x=x, y=y, customdata=numbers, hovertemplate=hover)
    return trace.update(marker={"size": size, "line": {"width": 1, "color": "rgba(0,0,0,0.35)"}})


def _belongs(study: StudyData, trial: TrialData, *params: Number) -> bool:
    complete = trial.state is TrialState.COMPLETE and trial.score is not None
    known = all(param.name in trial.params for param in params)
    return complete and known and study.space.holds(trial.params)


def _cell(param: Number, trial: TrialData, count: int) -> int:
    return min(int(count * place_of(param, trial.params[param.name])), count - 1)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _dot(trial: TrialData, x: Number, y: Number) -> tuple[float, float, int]:
    return float(trial.params[x.name]), float(trial.params[y.name]), trial.number
