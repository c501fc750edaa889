"""Timeline: what each worker trained when, and how each attempt ended."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import plotly.graph_objects as go

from service.figures import style
from service.figures.data import AttemptData, StudyData

_ROLES: Final = {
    None: "running",
    "ok": "complete",
    "pruned": "pruned",
    "paused": "paused",
    "preempted": "waiting",
    "diverged": "diverged",
}
_NAMES: Final = {None: "running", "ok": "ended well"}
_ROW: Final = 26  # height of a worker's row [px]
_ROWS: Final = 30  # workers that are shown, those that began last


def timeline_data(study: StudyData) -> dict[str, list[AttemptData]]:
    """Returns the attempts by worker, the worker that began last first, at most _ROWS of them."""
    by_worker: dict[str, list[AttemptData]] = {}
    for attempt in sorted(study.attempts, key=lambda attempt: attempt.started, reverse=True):
        by_worker.setdefault(attempt.worker, []).append(attempt)
    return dict(list(by_worker.items())[:_ROWS])


def timeline(study: StudyData) -> go.Figure:
    """Returns a bar for each attempt, in the row of its worker."""
    data = timeline_data(study)
    figure = style.figure(120 + _ROW * len(data) if data else 160)
    if not data:
        return style.note(figure, "Begins with the first attempt")
    attempts = [attempt for own in data.values() for attempt in own]
    now = max(attempt.ended or attempt.started for attempt in attempts)
    now = max(now, datetime.now(UTC)) if any(a.ended is None for a in attempts) else now
    for outcome in dict.fromkeys(attempt.outcome for attempt in attempts):
        figure.add_trace(_bars([a for a in attempts if a.outcome == outcome], outcome, now))
    figure.update_layout(
        barmode="overlay",
        bargap=0.3,
        meta={"columns": {"y": "worker"}},
        xaxis={"type": "date"},
        yaxis={"categoryorder": "array", "categoryarray": list(reversed(data)), "showgrid": False},
    )
    return figure


def _bars(attempts: Sequence[AttemptData], outcome: str | None, now: datetime) -> go.Bar:
    role, name = _ROLES.get(outcome, "failed"), _NAMES.get(outcome, outcome)
    lengths = [1_000 * ((a.ended or now) - a.started).total_seconds() for a in attempts]
    return go.Bar(
        name=name,
        orientation="h",
        base=[attempt.started for attempt in attempts],
        x=lengths,  # [ms]
        y=[attempt.worker for attempt in attempts],
        customdata=[attempt.number for attempt in attempts],
        text=[f"attempt {a.attempt}, from step {a.start_step}" for a in attempts],
        textposition="none",
        marker={"color": style.COLOURS[role], "line": {"width": 0.5, "color": "rgba(0,0,0,0.3)"}},
        meta={"role": role},
        hovertemplate="trial %{customdata}<br>%{text}<extra>" + str(name) + "</extra>",
    )
