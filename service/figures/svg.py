"""A figure as a still picture: SVG that needs no script, no font and no other host.

It draws what a report's figures are made of: lines, marks, bars that lie on their side, panels,
shaded spans and notes, on linear, log and category axes. plotly itself draws only in a browser.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any, Final

import plotly.graph_objects as go

from service.figures import style
from service.figures.axes import LETTER, Axis, axes_of

_LEFT, _RIGHT, _BOTTOM = 64, 14, 48  # room around a plot [px]
_LEGEND: Final = 26  # height of the legend's row [px]
_ROW: Final = 14  # height of a row of text [px]
_DASHES: Final = {"dash": "6 4", "dot": "2 3"}
_SPIKES: Final = [(3.2 if k % 2 else 8.0, k * math.pi / 5) for k in range(10)]  # radius, angle
_STAR: Final = "L".join(f"{r * math.sin(a):.1f} {-r * math.cos(a):.1f}" for r, a in _SPIKES)
Box = tuple[float, float, float, float]  # x, y, width, height [px]


def svg(figure: go.Figure, title: str, width: int = 900) -> str:
    """Returns the figure as an `<svg>` element that is as wide as its place lets it be.

    Args:
        figure: one of our own.
        title: what it shows, for those who cannot see it.
        width: of the drawing, in which its letters have 12 px [px].
    """
    height = int(figure.layout.height or 340)
    axes = axes_of(figure)
    named = [trace for trace in figure.data if trace.showlegend is not False and trace.name]
    top = _LEGEND if len(named) > 1 else 6
    labels = [axis.widest for name, axis in axes.items() if name.startswith("y") and axis.visible]
    left = max(_LEFT, 22 + LETTER * max(labels, default=0))
    across = width - left - _RIGHT
    lines = max((_lines(a, across) for name, a in axes.items() if name.startswith("x")), default=1)
    area = (left, float(top), across, height - top - _BOTTOM - _ROW * (lines - 1))
    parts = [*_legend(named, left), *_panels(figure, axes, area)]
    parts += [_note(note, axes, area) for note in figure.layout.annotations]
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}" '
        f'font-family="{escape(style.FONT)}" font-size="12" fill="{style.INK}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def _lines(x: Axis, across: float) -> int:
    """Returns how many rows of text an axis needs in a drawing so wide [px]."""
    return len(x.rows_of_ticks(across * (x.domain[1] - x.domain[0])))


def _panels(figure: go.Figure, axes: dict[str, Axis], area: Box) -> Iterator[str]:
    """Yields each panel: its grid, then its traces within its box."""
    panels: dict[tuple[str, str], list[Any]] = {}
    for trace in figure.data:
        panels.setdefault((trace.xaxis or "x", trace.yaxis or "y"), []).append(trace)
    for (x_name, y_name), traces in panels.items():
        x, y = axes[x_name], axes[y_name]
        box = _box(x, y, area)
        yield from _grid(x, y, box)
        yield '<svg x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}">'.format(*box)
        if y_name == "y":
            yield from (_span(shape, x, box) for shape in figure.layout.shapes)
        for trace in traces:
            draw = _bars if trace.type == "bar" else _scatter
            yield from draw(trace, x, y, box)
        yield "</svg>"


def _box(x: Axis, y: Axis, area: Box) -> Box:
    """Returns the place of a panel."""
    left, top, width, height = area
    (x0, x1), (y0, y1) = x.domain, y.domain
    return left + x0 * width, top + (1 - y1) * height, (x1 - x0) * width, (y1 - y0) * height


def _grid(x: Axis, y: Axis, box: Box) -> Iterator[str]:
    left, top, width, height = box
    bottom = top + height
    if y.visible:
        for place, text in y.ticks:
            at = bottom - place * height
            yield _line(left, at, left + width, at, style.GRID)
            if y.labelled:
                yield _text(left - 6, at + 4, text, "end")
        if y.title:
            turned = f"rotate(-90 14 {top + height / 2:.0f})"
            yield _text(14, top + height / 2, y.title, "middle", f' transform="{turned}"')
    if x.visible and y.visible:  # an axis laid over another has its grid already
        rows = x.rows_of_ticks(width)
        for row, ticks in enumerate(rows):
            for place, text in ticks:
                at = left + place * width
                yield _line(at, top, at, bottom, style.GRID)
                yield _text(at, bottom + 16 + row * _ROW, text, "middle")
        yield _text(left + width / 2, bottom + 22 + len(rows) * _ROW, x.title, "middle")


def _scatter(trace: Any, x: Axis, y: Axis, box: Box) -> Iterator[str]:
    xs, ys = trace.x or (), trace.y or ()
    points = [_at(x, y, box, a, b) for a, b in zip(xs, ys, strict=False)]
    faint = "" if trace.opacity is None else f' opacity="{trace.opacity}"'
    if "lines" in trace.mode:
        steps = trace.line.shape == "hv"
        dash = _DASHES.get(trace.line.dash or "")
        yield (
            f'<path d="{_path(points, steps=steps)}" fill="none" stroke="{trace.line.color}"'
            f' stroke-width="{trace.line.width or 2}" stroke-linejoin="round"'
            + (f' stroke-dasharray="{dash}"' if dash else "")
            + f"{faint}/>"
        )
    if "markers" in trace.mode:
        color = trace.marker.color or trace.line.color
        yield _marks(points, trace.marker, color, faint)


def _marks(
    points: Sequence[tuple[float, float] | None], marker: Any, color: str, faint: str
) -> str:
    """Returns all marks of a trace as one path."""
    size, symbol = float(marker.size or 6), marker.symbol or "circle"
    faint = faint if marker.opacity is None else f' opacity="{marker.opacity}"'
    there = [point for point in points if point is not None]
    if symbol == "star":
        stars = "".join(f'<path transform="translate({x} {y})" d="M{_STAR}Z"/>' for x, y in there)
        return f'<g fill="{color}">{stars}</g>'
    if symbol == "x":
        h = size / 2
        d = "".join(
            f"M{x - h:.1f} {y - h:.1f}l{size} {size}m0 {-size}l{-size} {size}" for x, y in there
        )
        return f'<path d="{d}" stroke="{color}" stroke-width="2" fill="none"{faint}/>'
    if symbol == "triangle-up":
        h = size / 2
        d = "".join(f"M{x - h:.1f} {y + h:.1f}h{size}l{-h} {-size}Z" for x, y in there)
        return f'<path d="{d}" fill="{color}"{faint}/>'
    # A line of no length with round ends is a dot: ten bytes instead of a circle's fifty.
    d = "".join(f"M{x} {y}h0" for x, y in there)
    return f'<path d="{d}" stroke="{color}" stroke-width="{size}" stroke-linecap="round"{faint}/>'


def _bars(trace: Any, x: Axis, y: Axis, box: Box) -> Iterator[str]:
    """Yields bars that lie on their side, with their texts."""
    color, (_, _, width, height) = trace.marker.color, box
    thick = 0.66 * height / max(len(y.categories), 1)
    texts = trace.text or [""] * len(trace.x)
    for value, name, text in zip(trace.x, trace.y, texts, strict=True):
        start, end = x.place(0.0) or 0.0, x.place(value) or 0.0
        middle = height * (1 - (y.place(name) or 0.0))
        yield (
            f'<rect x="{start * width:.1f}" y="{middle - thick / 2:.1f}" fill="{color}"'
            f' width="{max(end - start, 0.001) * width:.1f}" height="{thick:.1f}"/>'
        )
        yield _text(end * width + 6, middle + 4, str(text), "start")


def _span(shape: Any, x: Axis, box: Box) -> str:
    """Returns a shaded range of the x axis."""
    start, end = x.place(shape.x0) or 0.0, x.place(shape.x1) or 0.0
    _, _, width, height = box
    return (
        f'<rect x="{start * width:.1f}" width="{(end - start) * width:.1f}" height="{height:.1f}"'
        f' fill="{shape.fillcolor}" opacity="{shape.opacity}"/>'
    )


def _note(note: Any, axes: dict[str, Axis], area: Box) -> str:
    left, top, width, height = area
    anchor = "middle" if note.x == 0.5 else "end"
    return _text(left + note.x * width, top + (1 - note.y) * height + 12, note.text, anchor)


def _legend(traces: Sequence[Any], left: float) -> Iterator[str]:
    """Yields the names of the traces in a row, where there are several."""
    if len(traces) < 2:
        return
    at = left
    for trace in traces:
        lined = trace.type != "bar" and "lines" in trace.mode
        color = trace.line.color if lined else trace.marker.color
        yield f'<rect x="{at:.0f}" y="8" width="12" height="{4 if lined else 10}" fill="{color}"/>'
        yield _text(at + 18, 17, trace.name, "start")
        at += 36 + LETTER * len(trace.name)


def _path(points: Sequence[tuple[float, float] | None], *, steps: bool) -> str:
    """Returns the line through the points; None is a gap."""
    drawn, pen_down = [], False
    for point in points:
        if point is not None:
            x, y = point
            drawn.append((f"H{x}V{y}" if steps else f"L{x} {y}") if pen_down else f"M{x} {y}")
        pen_down = point is not None
    return "".join(drawn)


def _at(x: Axis, y: Axis, box: Box, a: Any, b: Any) -> tuple[float, float] | None:
    across, up = x.place(a), y.place(b)
    if across is None or up is None:
        return None
    return round(across * box[2], 1), round((1 - up) * box[3], 1)


def _line(x0: float, y0: float, x1: float, y1: float, color: str) -> str:
    return f'<path d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}" stroke="{color}"/>'


def _text(x: float, y: float, text: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(text)}</text>'
