"""Optimisation history: each trial's value by number, and the best so far."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import plotly.graph_objects as go

from service.figures import style
from service.figures.data import Point, StudyData, TrialData, shown, window
from studies.trial import TrialState

_VALUED: Final = (
    TrialState.COMPLETE,
    TrialState.PRUNED,
    TrialState.PAUSED,
    TrialState.WAITING,
    TrialState.RUNNING,
)
_VALUELESS: Final = (TrialState.FAILED, TrialState.CANCELLED)
_FEW: Final = 8  # trials with a tick each


@dataclass(frozen=True)
class History:
    """The points and lines of the figure.

    Attributes:
        points: (number, value) by role; a trial that is not over stands at its last report.
        without: numbers of the trials that ended without a value, by role.
        best: (number, best value so far): a point at each record, and one at the last trial.
        winner: the best trial.
        baseline: see StudyData; None too where it is out of range: it would flatten the rest.
        range: of the value axis; None without values.
        outside: how many points lie outside it.
    """

    points: dict[str, list[Point]]
    without: dict[str, list[int]]
    best: list[Point]
    winner: Point | None
    baseline: float | None
    range: tuple[float, float] | None
    outside: int


def history_data(study: StudyData) -> History:
    """Returns what the figure shows, at most MAX_TRIALS points with and without a value each."""
    valued = shown(study, lambda t: t.state in _VALUED and t.score is not None)
    lost = shown(study, lambda t: t.state in _VALUELESS)
    values = [trial.score for trial in valued if trial.score is not None]
    span = window(values, study.direction)
    return History(
        points={role: _points(own) for role, own in _by_role(valued, _VALUED)},
        without={role: [t.number for t in own] for role, own in _by_role(lost, _VALUELESS)},
        best=_best_so_far(study, _points(t for t in valued if t.state is TrialState.COMPLETE)),
        winner=_winner(study),
        baseline=study.baseline if _within(study.baseline, span) else None,
        range=span,
        outside=sum(not _within(value, span) for value in values),
    )


def history(study: StudyData) -> go.Figure:
    """Returns the optimisation history."""
    data = history_data(study)
    figure = style.figure(340)
    for role, points in data.points.items():
        figure.add_trace(_dots(role, role, points))
    for role, numbers in data.without.items():
        figure.add_trace(_rug(role, role, numbers))
    if data.best:
        x, y = zip(*data.best, strict=True)
        figure.add_trace(
            style.line("best", "best so far", x=x, y=y, line_shape="hv", hoverinfo="skip")
        )
    if data.winner:
        figure.add_trace(_dots("best", "best", [data.winner], showlegend=False))
    style.add_baseline(figure, data.baseline, [n for n, _ in data.best])
    style.value_axis(figure, study.metric, data.range, data.outside)
    figure.update_layout(
        xaxis={"title": {"text": "trial"}, "tickformat": "d", **_whole_ticks(study)},
        yaxis2=style.HEIGHT_AXIS,
    )
    return figure


def _within(value: float | None, span: tuple[float, float] | None) -> bool:
    return value is not None and span is not None and span[0] <= value <= span[1]


def _by_role(
    trials: Sequence[TrialData], states: Sequence[TrialState]
) -> ItemsView[str, list[TrialData]]:
    """Returns the trials of each role, those of the first state first."""
    found: dict[str, list[TrialData]] = {}
    for trial in sorted(trials, key=lambda trial: (states.index(trial.state), trial.diverged)):
        found.setdefault(style.role_of(trial), []).append(trial)
    return found.items()


def _points(trials: Iterable[TrialData]) -> list[Point]:
    return [(t.number, t.score) for t in trials if t.score is not None]


def _winner(study: StudyData) -> Point | None:
    best = study.best
    return (best.number, best.score) if best is not None and best.score is not None else None


def _best_so_far(study: StudyData, complete: Sequence[Point]) -> list[Point]:
    records: list[Point] = []
    for number, value in complete:
        if not records or study.better(value, records[-1][1]):
            records.append((number, value))
    last = max((trial.number for trial in study.trials), default=0)
    return [*records, (last, records[-1][1])] if records else []


def _dots(role: str, name: str, points: Sequence[Point], **trace: object) -> go.Scatter:
    x, y = zip(*points, strict=True)
    hover = "trial %{x}<br>%{y:.5g}<extra>" + name + "</extra>"
    return style.dots(role, name, x=x, y=y, customdata=x, hovertemplate=hover, **trace)


def _rug(role: str, name: str, numbers: Sequence[int]) -> go.Scatter:
    """Returns marks at the foot of the plot: these trials have no value to stand at."""
    hover = "trial %{x}<extra>" + name + "</extra>"
    foot = [0.02] * len(numbers)
    return style.dots(
        role, name, x=numbers, y=foot, yaxis="y2", customdata=numbers, hovertemplate=hover
    )


def _whole_ticks(study: StudyData) -> dict[str, int]:
    """Returns ticks at every trial where they are few: plotly would put some between two."""
    return {"dtick": 1} if len(study.trials) <= _FEW else {}
