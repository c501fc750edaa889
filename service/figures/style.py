"""How figures look: a colour for each role, one layout for all.

A trace says its role in `meta.role`; a page may paint it again for a dark background. The colours
here are those of the light page (service/static/style.css holds both; a test compares them).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import plotly.graph_objects as go

from service.figures.data import TrialData

COLOURS: Final = {
    "best": "#0b7a53",
    "complete": "#2f62c9",
    "running": "#b86e00",
    "waiting": "#7a86a0",
    "paused": "#7a86a0",
    "pruned": "#97a0b0",
    "failed": "#c2323f",
    "diverged": "#a0268f",
    "cancelled": "#97a0b0",
    "baseline": "#7c4dbd",
}
_SYMBOLS: Final = {
    "best": "star",
    "failed": "x",
    "diverged": "triangle-up",
    "cancelled": "x",
    "running": "circle-open",
}
CROWD: Final = 200  # points or curves of one role that hide one another; by eye
# A second axis over that of the values, for what stands at a part of the plot's height [0, 1].
HEIGHT_AXIS: Final = {"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True}
INK: Final = "#3d4759"
GRID: Final = "#e3e7ee"
FONT: Final = "-apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Noto Sans', sans-serif"
TEMPLATE: Final = go.layout.Template(
    layout={
        "font": {"family": FONT, "size": 12, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 56, "r": 12, "t": 12, "b": 44},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "hovermode": "closest",
        "xaxis": {"gridcolor": GRID, "zeroline": False, "automargin": True},
        "yaxis": {"gridcolor": GRID, "zeroline": False, "automargin": True},
    }
)


def role_of(trial: TrialData) -> str:
    """Returns the role that the trial is drawn in: its state, or what kind of failure it was."""
    return "diverged" if trial.diverged else trial.state.value.lower()


def figure(height: int, **layout: Any) -> go.Figure:
    """Returns an empty figure in the house style; a redraw keeps the reader's zoom.

    Args:
        height: of the drawing [px].
        layout: anything more of plotly's layout.
    """
    empty = go.Figure()
    return empty.update_layout(template=TEMPLATE, height=height, uirevision="kept", **layout)


def dots(role: str, name: str, **trace: Any) -> go.Scatter:
    """Returns a trace of points in the colour of the role; a crowd of them is drawn lighter."""
    crowd = len(trace["x"]) > CROWD
    marker = {
        "color": COLOURS[role],
        "size": 13 if role == "best" else 5 if crowd else 7,
        "symbol": _SYMBOLS.get(role, "circle"),
        "opacity": 0.5 if crowd else 0.75 if role in ("pruned", "cancelled") else 0.9,
    }
    return go.Scatter(mode="markers", name=name, marker=marker, meta={"role": role}, **trace)


def line(role: str, name: str, *, width: float = 2.0, dash: str = "solid", **trace: Any) -> Any:
    """Returns a trace of lines in the colour of the role.

    Args:
        role: key of COLOURS.
        name: text of the legend.
        width: of the line [px].
        dash: plotly's dash name.
        trace: anything more of plotly's scatter.
    """
    style = {"color": COLOURS[role], "width": width, "dash": dash}
    trace = {"mode": "lines", **trace}
    return go.Scatter(name=name, line=style, meta={"role": role}, **trace)


def add_baseline(figure: go.Figure, baseline: float | None, xs: Sequence[float]) -> None:
    """Draws the baseline over the width of `xs`; nothing where it is unknown."""
    if baseline is None:
        return
    ends = [min(xs, default=0), max(xs, default=1)]
    name = f"unigram {baseline:.3g}"
    trace = line("baseline", name, dash="dash", width=1.5, x=ends, y=[baseline, baseline])
    figure.add_trace(trace.update(hoverinfo="skip"))


def value_axis(
    figure: go.Figure, metric: str, span: tuple[float, float] | None, outside: int = 0
) -> None:
    """Labels the value axis, sets its range, and says how many points lie outside."""
    figure.update_layout(yaxis={"title": {"text": label(metric)}, "range": span})
    if outside:
        note(figure, f"{outside} outside; double-click shows all", x=1, y=1, size=11)


def note(
    figure: go.Figure, text: str, *, x: float = 0.5, y: float = 0.5, size: int = 13
) -> go.Figure:
    """Returns the figure with a quiet text; x and y are parts of the plot's width and height."""
    if not figure.data:
        figure.update_layout(xaxis={"visible": False}, yaxis={"visible": False})
    return figure.add_annotation(
        text=text, x=x, y=y, xref="paper", yref="paper", showarrow=False, font={"size": size}
    )


def words(name: str) -> str:
    """Returns a metric's name in plain words."""
    return name.replace("_", " ")


def label(metric: str) -> str:
    """Returns the metric as an axis says it, with its unit."""
    unit = {"validation_loss": "nats/token", "train_loss": "nats/token", "tokens_per_second": "1/s"}
    return words(metric) + (f" [{unit[metric]}]" if metric in unit else "")
