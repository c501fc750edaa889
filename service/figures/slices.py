"""Slices: the objective against each searched knob, one panel per knob."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from service.figures import style
from service.figures.data import StudyData, shown, window
from studies.space import CategoricalParam, Param, Scalar
from studies.trial import TrialState

_STATES: Final = (TrialState.PRUNED, TrialState.COMPLETE)
_PANEL: Final = 170  # height of a panel's plot [px]
_BELOW: Final = 72  # between two rows: ticks and title of the upper one [px]
Cell = tuple[Scalar, float, int]  # the knob's value, the objective, the trial's number


@dataclass(frozen=True)
class Panel:
    """One knob's panel; `categories` is the order of a choice's values, else empty."""

    name: str
    axis: Literal["log", "linear", "category"]
    categories: list[str]
    points: dict[str, list[Cell]]  # by role, the front last


def slices_data(study: StudyData) -> list[Panel]:
    """Returns the panels in the order of the search space, at most MAX_TRIALS points each."""
    trials = shown(study, lambda t: t.state in _STATES and t.score is not None)
    best = study.best
    panels = []
    for param in study.space:
        points: dict[str, list[Cell]] = {"pruned": [], "complete": [], "best": []}
        for trial in trials:
            if param.name in trial.params and trial.score is not None:
                role = "best" if trial is best else style.role_of(trial.state)
                value = trial.params[param.name]
                points[role].append((_cell(param, value), trial.score, trial.number))
        panels.append(Panel(param.name, _axis(param), _categories(param), points))
    return panels


def slices(study: StudyData, columns: int = 4) -> go.Figure:
    """Returns the panels, at most `columns` side by side, all with one range of values."""
    panels = slices_data(study)
    if not any(cells for panel in panels for cells in panel.points.values()):
        return style.note(style.figure(_PANEL + _BELOW), "Known after the first trial has ended")
    rows = math.ceil(len(panels) / columns)
    columns = math.ceil(len(panels) / rows)  # full rows, where that is possible
    height = rows * (_PANEL + _BELOW)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        shared_yaxes=True,
        horizontal_spacing=0.12 / columns,
        vertical_spacing=_BELOW / height,
        figure=style.figure(height + 40),
    )
    values = [y for panel in panels for cells in panel.points.values() for _, y, _ in cells]
    span = window(values, study.direction)
    for index, panel in enumerate(panels):
        row, column = index // columns + 1, index % columns + 1
        _add_panel(figure, panel, row, column, legend=index == 0)
        figure.update_yaxes(range=span, row=row, col=column)
    figure.update_yaxes(title={"text": style.label(study.metric)}, col=1)
    return figure


def _add_panel(figure: go.Figure, panel: Panel, row: int, column: int, *, legend: bool) -> None:
    for role, cells in panel.points.items():
        x, y, numbers = ([cell[part] for cell in cells] for part in range(3))
        trace = style.dots(
            role,
            role,
            x=x,
            y=y,
            customdata=numbers,
            legendgroup=role,
            showlegend=legend,
            hovertemplate="trial %{customdata}<br>%{x}<br>%{y:.4g}<extra>" + role + "</extra>",
        )
        figure.add_trace(trace, row=row, col=column)
    axis: dict[str, object] = {"type": panel.axis, "title": {"text": panel.name}}
    if panel.axis == "category":
        axis |= {"categoryorder": "array", "categoryarray": panel.categories}
        axis["range"] = [-0.5, len(panel.categories) - 0.5]
    elif panel.axis == "log":
        axis |= {"exponentformat": "e", "dtick": 1}
    figure.update_xaxes(**axis, row=row, col=column)


def _axis(param: Param) -> Literal["log", "linear", "category"]:
    if isinstance(param, CategoricalParam):
        return "category"
    return "log" if getattr(param, "log", False) else "linear"


def _categories(param: Param) -> list[str]:
    return [str(c) for c in param.choices] if isinstance(param, CategoricalParam) else []


def _cell(param: Param, value: Scalar) -> Scalar:
    return str(value) if isinstance(param, CategoricalParam) else value
