"""Loss against learning rate, coloured by precision; where trials diverge it is shaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import plotly.graph_objects as go

from service.figures import style
from service.figures.data import StudyData, TrialData, shown, window
from studies.trial import TrialState

_RATE: Final = "learning_rate"
_ROLES: Final = ("complete", "running", "baseline", "best")  # colours of precisions, in their order
_VALUED: Final = (TrialState.COMPLETE, TrialState.PRUNED)
Dot = tuple[float, float, int]  # learning rate, objective, number


@dataclass(frozen=True)
class Group:
    """The trials of one precision.

    Attributes:
        name: the precision.
        dots: of trials with a value.
        diverged: learning rates and numbers of those that diverged.
        edge: the learning rate from which trials diverge; None where none did.
    """

    name: str
    dots: list[Dot]
    diverged: list[tuple[float, int]]
    edge: float | None


def rates_data(study: StudyData) -> list[Group]:
    """Returns a group for each precision; none where the learning rate is not searched."""
    trials = shown(study, lambda t: _RATE in t.params and (t.diverged or _valued(t)))
    groups = []
    for name in sorted({_precision(trial) for trial in trials}):
        own = [trial for trial in trials if _precision(trial) == name]
        dots = [_dot(t) for t in own if not t.diverged]
        diverged = [(float(t.params[_RATE]), t.number) for t in own if t.diverged]
        fates = [(rate, False) for rate, _, _ in dots] + [(rate, True) for rate, _ in diverged]
        groups.append(Group(name, dots, diverged, divergence_edge(fates)))
    return groups


def divergence_edge(fates: Sequence[tuple[float, bool]]) -> float | None:
    """Returns the learning rate that parts best what trained from what diverged.

    It is the diverged rate with the fewest trials on the wrong side, the largest of equals.

    Args:
        fates: (learning rate, whether it diverged).
    """
    wrong = sum(not diverged for _, diverged in fates)  # all are taken to diverge
    least, edge = wrong + 1, None
    for rate, diverged in sorted(fates):
        if diverged and wrong <= least:
            least, edge = wrong, rate
        wrong += 1 if diverged else -1
    return edge


def rates(study: StudyData) -> go.Figure:
    """Returns the figure."""
    groups = rates_data(study)
    figure = style.figure(340)
    if not groups:
        return style.note(figure, "Known once trials with a searched learning rate have ended")
    for index, group in enumerate(groups):
        _add(figure, group, _ROLES[index % len(_ROLES)])
    span = window((y for group in groups for _, y, _ in group.dots), study.direction)
    style.value_axis(figure, study.metric, span)
    figure.update_layout(
        xaxis={"title": {"text": "learning rate"}, "type": "log", "exponentformat": "e"},
        yaxis2=style.HEIGHT_AXIS,
    )
    return figure


def _add(figure: go.Figure, group: Group, role: str) -> None:
    x, y, numbers = ([dot[part] for dot in group.dots] for part in range(3))
    hover = "trial %{customdata}<br>%{x:.3g}<br>%{y:.5g}<extra>" + group.name + "</extra>"
    trace = style.dots(role, group.name, x=x, y=y, customdata=numbers, hovertemplate=hover)
    figure.add_trace(trace.update(legendgroup=group.name))
    if group.edge is None:
        return
    rates, lost = zip(*group.diverged, strict=True)
    said = f"{group.name} diverged"
    marks = style.dots(role, said, x=rates, y=[0.97] * len(rates), yaxis="y2", customdata=lost)
    hover = "trial %{customdata}<br>%{x:.3g}<extra>" + said + "</extra>"
    marks.update(hovertemplate=hover, marker={"symbol": "x"}, legendgroup=group.name)
    figure.add_trace(marks)
    colour = style.COLOURS[role]
    figure.add_vrect(
        x0=group.edge, x1=max(rates) * 1.2, fillcolor=colour, opacity=0.1, line={"width": 0}
    )


def _precision(trial: TrialData) -> str:
    return str(trial.params.get("precision", "all trials"))


def _valued(trial: TrialData) -> bool:
    return trial.state in _VALUED and trial.score is not None and float(trial.params[_RATE]) > 0


def _dot(trial: TrialData) -> Dot:
    score = trial.score
    return float(trial.params[_RATE]), math.nan if score is None else score, trial.number
