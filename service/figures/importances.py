"""How much of the objective's variance each knob explains."""

from __future__ import annotations

import plotly.graph_objects as go

from service.figures import style
from service.figures.data import StudyData, finite
from studies.trial import TrialState


def importances_data(study: StudyData) -> list[tuple[str, float]]:
    """Returns (knob, importance), the least first: bars are drawn from below."""
    known = {
        name: value
        for name, value in study.importances.items()
        if finite(value) is not None and value >= 0
    }
    return sorted(known.items(), key=lambda item: (item[1], item[0]))


def importances(study: StudyData) -> go.Figure:
    """Returns a bar for each knob."""
    data = importances_data(study)
    figure = style.figure(max(140, 34 * len(data) + 84) if data else 160)
    if not data:
        return style.note(figure, "Known after a few complete trials")
    names, values = zip(*data, strict=True)
    figure.add_trace(
        go.Bar(
            x=values,
            y=names,
            orientation="h",
            text=[f"{value:.0%}" for value in values],
            textposition="outside",
            cliponaxis=False,
            marker={"color": style.COLOURS["complete"]},
            meta={"role": "complete"},
            hovertemplate="%{y}: %{x:.1%}<extra></extra>",
        )
    )
    count = sum(trial.state is TrialState.COMPLETE for trial in study.trials)
    title = f"part of the differences explained, from {count} complete trials"
    return figure.update_layout(
        xaxis={
            "title": {"text": title},
            "tickformat": ".0%",
            "range": [0, 1.12 * (max(values) or 1)],
        },
        yaxis={"ticksuffix": " ", "showgrid": False},
        bargap=0.35,
        meta={"columns": {"x": "importance", "y": "knob"}},
        showlegend=False,
    )
