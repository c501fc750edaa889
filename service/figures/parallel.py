"""Parallel coordinates: a line for each trial through its knobs' values to its objective.

Lines are drawn as a scatter: plotly's own kind needs WebGL, and hides labels on a phone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import plotly.graph_objects as go

from service.figures import style
from service.figures.data import StudyData, TrialData, shown, window
from service.figures.scale import place_of
from studies.space import CategoricalParam, FloatParam, IntParam, Param, Scalar
from studies.trial import TrialState

LINES: Final = 300  # assumption: more cannot be told apart
_QUARTERS: Final = (("worst half", 1.0), ("best half", 0.5), ("best tenth", 0.1))
_ROLES: Final = {"worst half": "pruned", "best half": "complete", "best tenth": "running"}


@dataclass(frozen=True)
class Line:
    """One trial: its values and places [0, 1] on the axes, None where a knob was off; its group."""

    number: int
    values: list[Scalar | None]
    places: list[float | None]
    group: str


@dataclass(frozen=True)
class Axes:
    """The names of the axes, what stands at their lower and upper ends, and the lines.

    `scales` says for static/brush.js which value stands where: an axis' name, and its ends and
    whether it is a log axis, or its choices.
    """

    names: list[str]
    ends: list[tuple[str, str]]
    lines: list[Line]
    scales: list[dict[str, Any]]


def parallel_data(study: StudyData) -> Axes:
    """Returns the axes in the order of the search space, the objective last."""
    inside = study.space.holds  # a trial from before the space was narrowed has no place
    few = shown(
        study,
        lambda t: t.state is TrialState.COMPLETE and t.score is not None and inside(t.params),
    )
    trials = few[:: math.ceil(len(few) / LINES)] if few else []
    best = study.best
    if best is not None and best not in trials and inside(best.params):
        trials = [*trials, best]
    sign = 1.0 if study.direction == "minimize" else -1.0
    ranked = sorted(trials, key=lambda trial: sign * (trial.score or 0.0))
    span = window((t.score for t in ranked if t.score is not None), study.direction) or (0.0, 1.0)
    lines = [
        Line(
            number=trial.number,
            values=[*(trial.params.get(param.name) for param in study.space), trial.score],
            places=_places(study, trial, span),
            group=_group(rank, len(ranked)),
        )
        for rank, trial in enumerate(ranked)
    ]
    names = [param.name for param in study.space]
    ends = [_ends(param) for param in study.space]
    metric = f"{span[0]:.3g}", f"{span[1]:.3g}"
    scales = [_scale(param) for param in study.space]
    scales.append({"name": study.metric, "low": span[0], "high": span[1], "log": False})
    return Axes([*names, style.words(study.metric)], [*ends, metric], lines, scales)


def parallel(study: StudyData) -> go.Figure:
    """Returns the lines, the best in front."""
    data = parallel_data(study)
    figure = style.figure(360)
    if not data.lines:
        return style.note(figure, "Known after the first complete trial")
    for group in (*(name for name, _ in _QUARTERS), "best"):
        lines = [line for line in data.lines if line.group == group]
        if lines:
            figure.add_trace(_trace(group, lines, len(data.names)))
    for place, (low, high) in enumerate(data.ends):
        for text, y, anchor in ((low, 0.0, "top"), (high, 1.0, "bottom")):
            figure.add_annotation(x=place, y=y, text=text, yanchor=anchor, showarrow=False)
        figure.add_vline(place, line={"width": 1, "color": style.GRID})
    ticks = {"tickvals": list(range(len(data.names))), "ticktext": data.names, "showgrid": False}
    ticks |= {"range": [-0.25, len(data.names) - 0.75]}  # room for the outer labels
    # static/brush.js filters the table
    brush = {"dragmode": "select", "selectdirection": "d", "meta": {"axes": data.scales}}
    figure.update_layout(xaxis=ticks, yaxis={"visible": False, "range": [-0.09, 1.09]}, **brush)
    return figure


def _trace(group: str, lines: list[Line], width: int) -> go.Scatter:
    x: list[int | None] = []
    y: list[float | None] = []
    numbers: list[int | None] = []
    for line in lines:
        x += [*range(width), None]
        y += [*line.places, None]
        numbers += [*[line.number] * width, None]
    role = _ROLES.get(group, "best")
    trace = style.line(
        role,
        group,
        width=3.0 if group == "best" else 1.2,
        opacity=1.0 if group == "best" else 0.5,
        x=x,
        y=y,
        customdata=numbers,
        connectgaps=False,
        hovertemplate="trial %{customdata}<extra>" + group + "</extra>",
    )
    return trace.update(
        meta={"role": role, "rows": [[line.number, *line.values] for line in lines]}
    )


def _group(rank: int, count: int) -> str:
    if rank == 0:
        return "best"
    return next(name for name, part in reversed(_QUARTERS) if rank < part * count)


def _places(study: StudyData, trial: TrialData, span: tuple[float, float]) -> list[float | None]:
    own = [
        place_of(p, trial.params[p.name]) if p.name in trial.params else None for p in study.space
    ]
    score = trial.score or 0.0
    return [*own, min(max((score - span[0]) / (span[1] - span[0]), 0.0), 1.0)]


def _ends(param: Param) -> tuple[str, str]:
    if isinstance(param, CategoricalParam):
        return str(param.choices[0]), str(param.choices[-1])
    assert isinstance(param, FloatParam | IntParam)  # noqa: S101 - the only other kinds
    return f"{param.low:.3g}", f"{param.high:.3g}"


def _scale(param: Param) -> dict[str, Any]:
    if isinstance(param, CategoricalParam):
        return {"name": param.name, "choices": [str(choice) for choice in param.choices]}
    assert isinstance(param, FloatParam | IntParam)  # noqa: S101 - the only other kinds
    return {"name": param.name, "low": param.low, "high": param.high, "log": param.log}
