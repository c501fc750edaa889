"""The axes of a still picture: where a value stands, and which values are named."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import plotly.graph_objects as go

LETTER: Final = 6.4  # width of a letter of 12 px, on average [px]; assumption
_TICK_ROOM: Final = 70  # of a number on an x axis [px]
_GAP: Final = 10  # between two names on an x axis [px]
_TICKS: Final = 6  # of a linear axis, about
_FEW: Final = 1.5  # decades under which a log axis names 2 and 5 too


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        low: its lower end; of a log axis the logarithm, of a category axis an index.
        high: its upper end.
        domain: the part of the drawing that it spans [0, 1].
        title: what stands beside it.
        kind: linear, log or category.
        categories: of a category axis, in order.
        tick_format: plotly's.
        visible: it is drawn.
        labelled: its ticks have labels.
    """

    low: float
    high: float
    domain: tuple[float, float] = (0.0, 1.0)
    title: str = ""
    kind: str = "linear"
    categories: tuple[str, ...] = ()
    tick_format: str = ""
    visible: bool = True
    labelled: bool = True

    def place(self, value: Any) -> float | None:
        """Returns where the value stands, 0 at the lower end and 1 at the upper; None: nowhere."""
        at = self._number(value)
        return None if at is None else (at - self.low) / (self.high - self.low)

    def _number(self, value: Any) -> float | None:
        if self.kind == "category":
            return self.categories.index(str(value)) if str(value) in self.categories else None
        if value is None or not math.isfinite(value) or (self.kind == "log" and value <= 0):
            return None
        return math.log10(value) if self.kind == "log" else float(value)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """The named values: (place, text)."""
        if self.kind == "category":
            return [(self.place(name) or 0.0, name) for name in self.categories]
        values = self._decades() if self.kind == "log" else self._round_values()
        named = [(self.place(value), self._said(value)) for value in values]
        return [(at, text) for at, text in named if at is not None and 0 <= at <= 1]

    def rows_of_ticks(self, width: float) -> list[list[tuple[float, str]]]:
        """Returns the ticks of an x axis so wide [px], as the rows of text that have room for them.

        Names that do not fit into one row take turns in two; what fits into neither is left out.
        """
        ticks = self.ticks
        names = self.kind == "category"
        most = max(width / (LETTER * self.widest + _GAP if names else _TICK_ROOM), 1)
        rows = 2 if names and len(ticks) > most else 1
        kept = ticks[:: max(1, math.ceil(len(ticks) / (rows * most)))]
        return [kept[row::rows] for row in range(rows)]

    @property
    def widest(self) -> int:
        """Letters of the longest tick."""
        return max((len(text) for _, text in self.ticks), default=0)

    def _decades(self) -> list[float]:
        heads = (1, 2, 5) if self.high - self.low < _FEW else (1,)
        powers = range(math.floor(self.low), math.ceil(self.high) + 1)
        return [head * 10.0**power for power in powers for head in heads]

    def _round_values(self) -> list[float]:
        rough = (self.high - self.low) / _TICKS
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= rough * 0.999)
        if self.tick_format == "d":
            step = max(step, 1.0)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [n * step for n in range(first, last + 1)]

    def _said(self, value: float) -> str:
        if self.tick_format.endswith("%"):
            return f"{value:.0%}"
        if self.kind == "log":
            return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e+")
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.6g}"


def axes_of(figure: go.Figure) -> dict[str, Axis]:
    """Returns the figure's axes by plotly's names: x, y, x2 ..."""
    used: dict[str, list[Any]] = {}
    for trace in figure.data:
        used.setdefault(trace.xaxis or "x", []).extend(trace.x or ())
        used.setdefault(trace.yaxis or "y", []).extend(trace.y or ())
    return {name: _axis(figure, name, values) for name, values in used.items()}


def _axis(figure: go.Figure, name: str, values: Sequence[Any]) -> Axis:
    said = figure.layout[f"{name[0]}axis{name[1:]}"]
    kind = said.type or ("category" if any(isinstance(v, str) for v in values) else "linear")
    categories = tuple(dict.fromkeys(map(str, said.categoryarray or values)))
    return Axis(
        *_ends(said, kind, values, len(categories)),
        domain=tuple(said.domain or (0.0, 1.0)),
        title=(said.title.text if said.title else "") or "",
        kind=kind,
        categories=categories if kind == "category" else (),
        tick_format=said.tickformat or "",
        visible=said.visible is not False,
        labelled=said.showticklabels is not False,
    )


def _ends(said: Any, kind: str, values: Sequence[Any], categories: int) -> tuple[float, float]:
    """Returns the ends that the figure says, or those of the values with a little room."""
    if said.range is not None:
        return float(said.range[0]), float(said.range[1])
    if kind == "category":
        return -0.5, categories - 0.5
    numbers = [float(v) for v in values if v is not None and math.isfinite(v)]
    if kind == "log":
        numbers = [math.log10(v) for v in numbers if v > 0]
    low, high = min(numbers, default=0.0), max(numbers, default=1.0)
    if said.rangemode == "tozero":
        low = min(low, 0.0)
    room = 0.03 * (high - low) or 0.5
    return (low if said.rangemode == "tozero" else low - room), high + room
