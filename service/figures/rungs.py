"""Rungs of the scheduler: how many trials reached each, and how many were ended or paused there."""

from __future__ import annotations

from dataclasses import dataclass

import plotly.graph_objects as go

from service.figures import style
from service.figures.data import StudyData
from studies.trial import TrialState


@dataclass(frozen=True)
class Rung:
    """One rung: its step, and the trials that reached it, by what became of them."""

    step: int
    went_on: int
    pruned: int
    paused: int


def rungs_data(study: StudyData) -> list[Rung]:
    """Returns the rungs by step."""
    found = []
    for step in study.rungs:
        at = [trial.state for trial in study.trials if trial.step == step]
        pruned, paused = at.count(TrialState.PRUNED), at.count(TrialState.PAUSED)
        reached = sum(trial.step >= step for trial in study.trials)
        found.append(Rung(step, reached - pruned - paused, pruned, paused))
    return found


def rungs(study: StudyData) -> go.Figure:
    """Returns a bar for each rung."""
    data = rungs_data(study)
    figure = style.figure(260)
    if not data:
        return style.note(figure, "This study's scheduler has no rungs")
    steps = [f"step {rung.step}" for rung in data]
    for name, role in (("went on", "complete"), ("pruned", "pruned"), ("paused", "waiting")):
        counts = [getattr(rung, name.replace(" ", "_")) for rung in data]
        colour = {"color": style.COLOURS[role]}
        figure.add_trace(go.Bar(name=name, x=steps, y=counts, marker=colour, meta={"role": role}))
    columns = {"columns": {"x": "rung"}}
    return figure.update_layout(barmode="stack", yaxis={"title": {"text": "trials"}}, meta=columns)
