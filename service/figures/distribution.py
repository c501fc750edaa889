"""Empirical distribution: the share of complete trials that are at least as good as each value."""

from __future__ import annotations

from dataclasses import dataclass

import plotly.graph_objects as go

from service.figures import style
from service.figures.data import MAX_TRIALS, StudyData, thin, window
from studies.trial import TrialState

Step = tuple[float, float, int]  # value, share of trials [0, 1], number of the trial that has it


@dataclass(frozen=True)
class Distribution:
    """The steps of the line, the best value first, and the range of the value axis."""

    steps: list[Step]
    range: tuple[float, float] | None


def distribution_data(study: StudyData) -> Distribution:
    """Returns at most MAX_TRIALS steps; what is left out lies between two that are true."""
    sign = 1.0 if study.direction == "minimize" else -1.0
    complete = (trial for trial in study.trials if trial.state is TrialState.COMPLETE)
    ranked = sorted((sign * t.score, t.number) for t in complete if t.score is not None)
    last = len(ranked) - 1
    kept = thin(range(len(ranked)), MAX_TRIALS, {0, last} if ranked else ())
    steps = [(sign * ranked[i][0], (i + 1) / len(ranked), ranked[i][1]) for i in kept]
    return Distribution(steps, window((value for value, _, _ in steps), study.direction))


def distribution(study: StudyData) -> go.Figure:
    """Returns the distribution as a line of steps."""
    data = distribution_data(study)
    figure = style.figure(300)
    if not data.steps:
        return style.note(figure, "Known after the first complete trial")
    x, y, numbers = zip(*data.steps, strict=True)
    # From the best on, a step is wide before it is high, whichever way that is.
    line = style.line("complete", "complete", x=x, y=y, line_shape="hv", mode="lines+markers")
    better = "at most" if study.direction == "minimize" else "at least"
    hover = "trial %{customdata}<br>%{y:.1%} of trials have " + better + " %{x:.5g}<extra></extra>"
    figure.add_trace(
        line.update(customdata=numbers, hovertemplate=hover, marker={"size": 4}, showlegend=False)
    )
    share = {"title": {"text": "trials at least as good"}, "tickformat": ".0%", "range": [0, 1.04]}
    metric = {"title": {"text": style.label(study.metric)}, "range": data.range}
    return figure.update_layout(xaxis=metric, yaxis=share)
