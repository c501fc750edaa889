"""Devices: how many tokens each trained in a second, and the most memory in use, by attempt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from service.figures import style
from service.figures.data import LoadData, StudyData

_ROLES: Final = ("complete", "running", "baseline", "best")  # colours of devices, in their order
_DEVICES: Final = 8  # that are told apart, those that trained last
_GIB: Final = 2**30  # bytes


def devices_data(study: StudyData) -> dict[str, list[LoadData]]:
    """Returns what is known of attempts by device, the earliest first, at most _DEVICES devices."""
    loads: dict[str, list[LoadData]] = {}
    for load in sorted(study.loads, key=lambda load: load.started, reverse=True):
        loads.setdefault(load.device, []).append(load)
    return {device: own[::-1] for device, own in list(loads.items())[:_DEVICES]}


def devices(study: StudyData) -> go.Figure:
    """Returns throughput above memory, both over the time at which attempts began."""
    data = devices_data(study)
    if not data:
        return style.note(style.figure(340), "Begins with the first report of a device's speed")
    figure = make_subplots(
        rows=2, shared_xaxes=True, vertical_spacing=0.1, figure=style.figure(340)
    )
    for index, (device, loads) in enumerate(data.items()):
        _add(figure, device, loads, _ROLES[index % len(_ROLES)])
    figure.update_layout(meta={"columns": {"x": "began"}})
    figure.update_yaxes(title={"text": "tokens/s"}, rangemode="tozero", row=1)
    figure.update_yaxes(title={"text": "peak memory [GiB]"}, rangemode="tozero", row=2)
    return figure.update_xaxes(type="date")


def _add(figure: go.Figure, device: str, loads: Sequence[LoadData], role: str) -> None:
    speed = [(load, load.tokens_per_second) for load in loads]
    memory = [(load, load.memory and load.memory / _GIB) for load in loads]
    for row, (said, points) in enumerate((("tokens/s", speed), ("GiB", memory)), start=1):
        known = [(load, y) for load, y in points if y is not None]
        trace = style.dots(
            role,
            device,
            x=[load.started for load, _ in known],
            y=[y for _, y in known],
            customdata=[load.number for load, _ in known],
            legendgroup=device,
            showlegend=row == 1,
            hovertemplate=f"trial %{{customdata}}<br>%{{y:.4g}} {said}<extra>{device}</extra>",
        )
        figure.add_trace(trace, row=row, col=1)
