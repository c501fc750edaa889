"""Figures of a study: trials -> pure plot data -> plotly figures; no database.

A new figure is one module with a `NAME_data` and a `NAME` function, and one entry below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import plotly.graph_objects as go

from service.figures.curves import curves, trial_curve
from service.figures.data import StudyData, TrialData
from service.figures.history import history
from service.figures.importances import importances
from service.figures.slices import slices

__all__ = ["FIGURES", "FigureSpec", "StudyData", "TrialData", "trial_curve"]


@dataclass(frozen=True)
class FigureSpec:
    """One kind of figure.

    Attributes:
        title: heading of the figure.
        draw: study -> figure.
        panels: it is made of panels; `draw` takes how many `columns` of them to set.
    """

    title: str
    draw: Callable[..., go.Figure]
    panels: bool = False

    def json(self, study: StudyData, columns: int) -> str:
        """Returns the figure as plotly JSON; what is not finite became null.

        Args:
            study: what to draw.
            columns: panels side by side, where the figure has panels.
        """
        figure = self.draw(study, columns=columns) if self.panels else self.draw(study)
        text = figure.to_json()
        assert isinstance(text, str)  # noqa: S101 - plotly has no types
        return text


FIGURES: Final[Mapping[str, FigureSpec]] = {
    "history": FigureSpec("Optimisation history", history),
    "curves": FigureSpec("Learning curves", curves),
    "importances": FigureSpec("What matters", importances),
    "slices": FigureSpec("Each knob on its own", slices, panels=True),
}
