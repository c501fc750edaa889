"""Pareto front: the objective against the time that a trial took, and those that nothing beats."""

from __future__ import annotations

from dataclasses import dataclass

import plotly.graph_objects as go

from service.figures import style
from service.figures.data import StudyData, TrialData, shown, window
from studies.trial import TrialState

Dot = tuple[float, float, int]  # time [s], objective, number


@dataclass(frozen=True)
class Front:
    """Complete trials: those that none is both cheaper and better than, and the others."""

    front: list[Dot]
    others: list[Dot]


def pareto_data(study: StudyData) -> Front:
    """Returns the trials by time, the shortest first."""
    # The front of all trials, not only of those that are drawn.
    known = [dot for trial in study.trials if (dot := _dot(trial)) is not None]
    front: list[Dot] = []
    for dot in sorted(known, key=lambda dot: (dot[0], _sign(study) * dot[1])):
        if not front or study.better(dot[1], front[-1][1]):
            front.append(dot)
    least = {number for _, _, number in front}
    drawn = [_dot(trial) for trial in shown(study, lambda t: _dot(t) is not None)]
    return Front(front, [dot for dot in drawn if dot is not None and dot[2] not in least])


def pareto(study: StudyData) -> go.Figure:
    """Returns the front over the other trials."""
    data = pareto_data(study)
    figure = style.figure(340)
    if not data.front:
        return style.note(figure, "Known after the first complete trial")
    hover = "trial %{customdata}<br>%{x:.3g} s<br>%{y:.5g}<extra></extra>"
    if data.others:
        x, y, numbers = zip(*data.others, strict=True)
        dots = style.dots("complete", "complete", x=x, y=y, customdata=numbers, hovertemplate=hover)
        figure.add_trace(dots)
    x, y, numbers = zip(*data.front, strict=True)
    line = style.line("best", "front", x=x, y=y, line_shape="hv", mode="lines+markers")
    figure.add_trace(line.update(customdata=numbers, hovertemplate=hover))
    span = window((y for _, y, _ in (*data.front, *data.others)), study.direction)
    style.value_axis(figure, study.metric, span)
    title = {"text": "time from the first grant to the end [s]"}
    return figure.update_layout(xaxis={"title": title, "rangemode": "tozero"})


def _sign(study: StudyData) -> float:
    return 1.0 if study.direction == "minimize" else -1.0


def _dot(trial: TrialData) -> Dot | None:
    over = trial.started is not None and trial.ended is not None
    if trial.state is not TrialState.COMPLETE or trial.score is None or not over:
        return None
    assert trial.started is not None and trial.ended is not None  # noqa: S101, PT018 - looked at
    return (trial.ended - trial.started).total_seconds(), trial.score, trial.number
