"""Figures of a study: trials -> pure plot data -> plotly figures; no database.

A new figure is one module with a `NAME_data` and a `NAME` function, and one entry below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import plotly.graph_objects as go

from service.figures.contour import contour
from service.figures.curves import Axis, curves, several, trial_curve
from service.figures.data import Point, StudyData, TrialData
from service.figures.devices import devices
from service.figures.distribution import distribution
from service.figures.history import history
from service.figures.importances import importances
from service.figures.parallel import parallel
from service.figures.pareto import pareto
from service.figures.rates import rates
from service.figures.rungs import rungs
from service.figures.slices import slices
from service.figures.timeline import timeline

__all__ = [
    "FIGURES",
    "FigureSpec",
    "Options",
    "Point",
    "StudyData",
    "TrialData",
    "several",
    "trial_curve",
]


@dataclass(frozen=True)
class Options:
    """What a reader may choose.

    Attributes:
        columns: panels side by side, of a figure that has panels.
        x: what learning curves are drawn over.
    """

    columns: int = 4
    x: Axis = "step"


@dataclass(frozen=True)
class FigureSpec:
    """One kind of figure.

    Attributes:
        title: heading of the figure.
        draw: study -> figure.
        takes: options that `draw` takes as well, by name.
        grows: it changes with every report; else only with the state of a trial.
        ranks: it shows importances, which take a while.
        attempts: it shows attempts.
        loads: it shows what attempts made of their devices.
    """

    title: str
    draw: Callable[..., go.Figure]
    takes: tuple[str, ...] = ()
    grows: bool = False
    ranks: bool = False
    attempts: bool = False
    loads: bool = False

    def chosen(self, options: Options) -> Options:
        """Returns the options with those only that make a difference here."""
        return Options(**{name: getattr(options, name) for name in self.takes})

    def json(self, study: StudyData, options: Options) -> str:
        """Returns the figure as plotly JSON; what is not finite became null."""
        figure = self.draw(study, **{name: getattr(options, name) for name in self.takes})
        text = figure.to_json()
        assert isinstance(text, str)  # noqa: S101 - plotly has no types
        return text


FIGURES: Final[Mapping[str, FigureSpec]] = {
    "history": FigureSpec("Optimisation history", history, grows=True),
    "curves": FigureSpec("Learning curves", curves, takes=("x",), grows=True),
    "importances": FigureSpec("What matters", importances, ranks=True),
    "rates": FigureSpec("Loss against learning rate", rates),
    "parallel": FigureSpec("All knobs together", parallel),
    "contour": FigureSpec("The two that matter most", contour, ranks=True),
    "pareto": FigureSpec("Loss against time", pareto),
    "slices": FigureSpec("Each knob on its own", slices, takes=("columns",)),
    "distribution": FigureSpec("Empirical distribution", distribution),
    "timeline": FigureSpec("Attempts by worker", timeline, attempts=True),
    "devices": FigureSpec("Throughput and memory by device", devices, loads=True),
    "rungs": FigureSpec("Rungs of the scheduler", rungs),
}
