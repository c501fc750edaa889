"""Resumes: where each attempt after the first went on with a trial, as lines over its curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import plotly.graph_objects as go

from service.figures import style
from service.figures.data import AttemptData

_LABELLED: Final = 8  # attempts, the last ones; each label has a row of its own
_ROW: Final = 14  # height of a label [px]
_HEIGHTS: Final = (0.0, 0.5, 1.0)  # parts of a line that hear the mouse


@dataclass(frozen=True)
class Resume:
    """The step at which an attempt began, what stands there (nothing at most), and what is told."""

    step: int
    label: str
    told: str


def resumes_data(attempts: Sequence[AttemptData]) -> list[Resume]:
    """Returns a resume for each attempt but the first, the last _LABELLED of them with a label."""
    found = []
    for before, attempt in pairwise(attempts):
        after = f", after {before.outcome}" if before.outcome else ""
        told = f"attempt {attempt.attempt} on {attempt.worker}, from step {attempt.start_step}"
        late = attempt.attempt > attempts[-1].attempt - _LABELLED
        label = f"attempt {attempt.attempt}{after}" if late else ""
        found.append(Resume(attempt.start_step, label, told + after))
    return found


def add_resumes(figure: go.Figure, attempts: Sequence[AttemptData], last: int) -> None:
    """Draws a line at each resume over the height of the plot.

    Args:
        figure: a trial's curve over steps.
        attempts: of the trial, in their order.
        last: the last step of the curve; labels stand on the side that has room.
    """
    resumes = resumes_data(attempts)
    if not resumes:
        return
    x, y, told = [], [], []
    for resume in resumes:
        x += [*[resume.step] * len(_HEIGHTS), None]
        y += [*_HEIGHTS, None]
        told += [*[resume.told] * len(_HEIGHTS), None]
    line = style.line("running", "next attempt", width=1.2, dash="dot", x=x, y=y, yaxis="y2")
    line.meta = {**(line.meta or {}), "aside": True}  # no values: not saved as data
    figure.add_trace(line.update(text=told, hovertemplate="%{text}<extra></extra>"))
    for row, resume in enumerate(resume for resume in resumes if resume.label):
        figure.add_annotation(
            text=resume.label,
            x=resume.step,
            xanchor="right" if 2 * resume.step > last else "left",
            y=1,
            yref="paper",
            yanchor="top",
            yshift=-_ROW * row,
            showarrow=False,
            font={"size": 11},
        )
    figure.update_layout(yaxis2=style.HEIGHT_AXIS)
