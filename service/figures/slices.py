"""Slices: the objective against each searched knob, one panel per knob."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from service.figures import style
from service.figures.data import StudyData, shown, window
from studies.space import CategoricalParam, FloatParam, IntParam, Param, Scalar
from studies.trial import TrialState

_STATES: Final = (TrialState.PRUNED, TrialState.COMPLETE)
_PANEL: Final = 170  # height of a panel's plot [px]
_BELOW: Final = 72  # between two rows: ticks and title of the upper one [px]
Cell = tuple[Scalar, float, int]  # the knob's value, the objective, the trial's number


@dataclass(frozen=True)
class Panel:
    """One knob's panel: its name, plotly's axis for it, and its points by role, the front last."""

    name: str
    axis: dict[str, Any]
    points: dict[str, list[Cell]]


def slices_data(study: StudyData) -> list[Panel]:
    """Returns the panels in the order of the search space, at most MAX_TRIALS points each."""
    inside = study.space.holds  # a trial from before the space was narrowed has no place
    trials = shown(study, lambda t: t.state in _STATES and t.score is not None and inside(t.params))
    best = study.best
    panels = []
    for param in study.space:
        points: dict[str, list[Cell]] = {"pruned": [], "complete": [], "best": []}
        for trial in trials:
            if param.name in trial.params and trial.score is not None:
                role = "best" if trial is best else style.role_of(trial)
                value = trial.params[param.name]
                points[role].append((_cell(param, value), trial.score, trial.number))
        panels.append(Panel(param.name, axis_of(param), points))
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
    named: set[str] = set()  # roles that the legend has
    for index, panel in enumerate(panels):
        row, column = index // columns + 1, index % columns + 1
        _add_panel(figure, panel, row, column, named)
        figure.update_yaxes(range=span, row=row, col=column)
    figure.update_yaxes(title={"text": style.label(study.metric)}, col=1)
    return figure


def _add_panel(figure: go.Figure, panel: Panel, row: int, column: int, named: set[str]) -> None:
    """Draws a panel; a role is named by the first panel that shows it."""
    for role, cells in panel.points.items():
        x, y, numbers = ([cell[part] for cell in cells] for part in range(3))
        trace = style.dots(
            role,
            role,
            x=x,
            y=y,
            customdata=numbers,
            legendgroup=role,
            showlegend=bool(cells) and role not in named,
            hovertemplate="trial %{customdata}<br>%{x}<br>%{y:.5g}<extra>" + role + "</extra>",
        )
        named |= {role} if cells else set()
        figure.add_trace(trace, row=row, col=column)
    figure.update_xaxes(title={"text": panel.name}, row=row, col=column, **panel.axis)


def axis_of(param: Param) -> dict[str, Any]:
    """Returns the axis over everything that is searched, not only over what was tried."""
    if isinstance(param, CategoricalParam):
        order = [str(choice) for choice in param.choices]
        ends = [-0.5, len(order) - 0.5]
        return {
            "type": "category",
            "range": ends,
            "categoryorder": "array",
            "categoryarray": order,
        }
    assert isinstance(param, FloatParam | IntParam)  # noqa: S101 - the only other kinds
    low, high = float(param.low), float(param.high)
    if param.log:
        low, high = math.log10(low), math.log10(high)
    margin = 0.06 * (high - low)
    axis: dict[str, Any] = {"type": "linear", "range": [low - margin, high + margin], "nticks": 6}
    if param.log:
        axis |= {"type": "log", "exponentformat": "e", "dtick": math.ceil((high - low) / 4)}
    return axis


def _cell(param: Param, value: Scalar) -> Scalar:
    return str(value) if isinstance(param, CategoricalParam) else value
