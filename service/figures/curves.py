"""Learning curves: the objective's metric against steps, all trials in one figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

import plotly.graph_objects as go

from service.figures import style
from service.figures.data import (
    MAX_POINTS,
    MIN_CURVE_POINTS,
    AttemptData,
    Point,
    StudyData,
    TrialData,
    finite,
    shown,
    thin,
    window,
)
from service.figures.resumes import add_resumes

XT = TypeVar("XT", int, float)
_MARKED: Final = 400  # points up to which each is marked; a single report shows only so
FEW: Final = ("complete", "running", "best", "failed", "baseline", "waiting")  # colours in turn
_BACK_TO_FRONT: Final = (
    "cancelled",
    "failed",
    "diverged",
    "pruned",
    "waiting",
    "paused",
    "complete",
    "running",
    "best",
)
_FAINT: Final = ("pruned", "cancelled", "failed", "diverged")


Axis = Literal["step", "tokens", "seconds"]
_TITLES: Final = {"step": "step", "tokens": "tokens", "seconds": "training time [s]"}


@dataclass(frozen=True)
class Curve:
    """One trial's curve; `role` decides its colour and what lies over what.

    Its points are (x, value), x being steps, tokens or seconds.
    """

    number: int
    role: str
    points: list[tuple[float, float]]


@dataclass(frozen=True)
class Curves:
    """All curves, from back to front, and the range of the value axis."""

    curves: list[Curve]
    baseline: float | None
    range: tuple[float, float] | None


def curves_data(study: StudyData, x: Axis = "step") -> Curves:
    """Returns at most MAX_TRIALS curves of together about MAX_POINTS points."""
    trials = shown(study, lambda trial: bool(trial.curve))
    best = study.best
    room = max(MAX_POINTS // max(len(trials), 1), MIN_CURVE_POINTS)
    curves = [
        Curve(
            number=trial.number,
            role="best" if trial is best else style.role_of(trial),
            points=thin_curve(_over(trial, x), room),
        )
        for trial in trials
    ]
    curves.sort(key=lambda curve: (_BACK_TO_FRONT.index(curve.role), curve.number))
    values = [value for curve in curves for _, value in curve.points]
    reference = [] if study.baseline is None else [study.baseline]
    return Curves(curves, study.baseline, window([*values, *reference], study.direction))


def _over(trial: TrialData, x: Axis) -> Sequence[tuple[float, float]]:
    """Returns the trial's curve over steps, tokens or seconds."""
    if x == "step":
        return trial.curve
    part = 0 if x == "tokens" else 1
    return [(at[part], point[1]) for at, point in zip(trial.spent, trial.curve, strict=True)]


def thin_curve(points: Sequence[tuple[XT, float]], limit: int) -> list[tuple[XT, float]]:
    """Returns at most `limit` finite points: first, last, lowest, highest, the rest spread."""
    kept = [point for point in points if finite(point[1]) is not None]
    if len(kept) <= limit:
        return kept
    by_value = sorted(range(len(kept)), key=lambda index: kept[index][1])
    return thin(kept, limit, {0, len(kept) - 1, by_value[0], by_value[-1]})


def curves(study: StudyData, x: Axis = "step") -> go.Figure:
    """Returns the learning curves over steps, tokens or seconds."""
    data = curves_data(study, x)
    figure = style.figure(340)
    marked = sum(len(curve.points) for curve in data.curves) <= _MARKED
    roles = dict.fromkeys(curve.role for curve in data.curves)
    for role in roles if "running" in roles else ("running", *roles):  # where curves may yet grow
        figure.add_trace(_trace(role, [c for c in data.curves if c.role == role], marked=marked))
    xs = [at for curve in data.curves for at, _ in curve.points]
    style.add_baseline(figure, data.baseline, xs)
    style.value_axis(figure, study.metric, data.range)
    return figure.update_layout(xaxis={"title": {"text": _TITLES[x]}, "rangemode": "tozero"})


def trial_curve(
    metrics: Mapping[str, Sequence[Point]],
    baseline: float | None,
    attempts: Sequence[AttemptData] = (),
) -> go.Figure:
    """Returns one trial's curves, the first metric in front, and where attempts went on.

    Args:
        metrics: (step, value) by name of the metric; metrics of one unit.
        baseline: see StudyData.
        attempts: of the trial, in their order.
    """
    named = {style.words(name): points for name, points in metrics.items()}
    figure = several(named, next(iter(metrics), ""), baseline, roles=("complete", "waiting"))
    steps = (step for points in metrics.values() for step, _ in points)
    add_resumes(figure, attempts, max(steps, default=0))
    return figure


def several(
    named: Mapping[str, Sequence[Point]],
    metric: str,
    baseline: float | None,
    direction: Literal["minimize", "maximize"] = "minimize",
    roles: Sequence[str] = FEW,
) -> go.Figure:
    """Returns a few curves, each in a colour of its own.

    Args:
        named: (step, value) by what the legend says; at most six.
        metric: what all of them show.
        baseline: see StudyData.
        direction: see StudyData.
        roles: their colours, in turn.
    """
    figure = style.figure(320)
    for role, (name, points) in zip(roles, named.items(), strict=False):
        kept = thin_curve(points, MAX_POINTS // len(named))
        mode = "lines+markers" if len(kept) <= _MARKED else "lines"
        x, y = [step for step, _ in kept], [value for _, value in kept]
        figure.add_trace(style.line(role, name, x=x, y=y, mode=mode))
    ranges = [value for points in named.values() for _, value in points]
    reference = [] if baseline is None else [baseline]
    style.add_baseline(figure, baseline, [s for points in named.values() for s, _ in points])
    style.value_axis(figure, metric, window([*ranges, *reference], direction))
    return figure.update_layout(xaxis={"title": {"text": "step"}, "rangemode": "tozero"})


def _trace(role: str, curves: Sequence[Curve], *, marked: bool) -> go.Scatter:
    """Returns one trace for all curves of a role; a gap stands between two of them."""
    x: list[float | None] = []
    y: list[float | None] = []
    numbers: list[int | None] = []
    crowd = len(curves) > style.CROWD
    for curve in curves:
        x += [*(step for step, _ in curve.points), None]
        y += [*(value for _, value in curve.points), None]
        numbers += [*(curve.number for _ in curve.points), None]
    name = "best" if role == "best" else role
    return style.line(
        role,
        name,
        width={"best": 3.0, "running": 2.2}.get(role, 1.4),
        dash="dot" if role == "diverged" else "solid",
        mode="lines+markers" if marked or role == "running" else "lines",
        marker={"size": 6 if role == "best" else 4, "color": style.COLOURS[role]},
        showlegend=bool(curves),
        opacity=0.25 if crowd else 0.55 if role in _FAINT else 0.85,
        x=x,
        y=y,
        customdata=numbers,
        connectgaps=False,
        hovertemplate="trial %{customdata}<br>at %{x}<br>%{y:.5g}<extra>" + name + "</extra>",
    )
