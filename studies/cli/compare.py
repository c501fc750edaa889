"""`lmtune compare`: a few trials side by side, what differs marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from studies.cli import shown
from studies.cli.context import AsJson, Name, client_of
from studies.cli.output import print_json, print_table, seconds, spark
from studies.errors import InvalidInput
from studies.wire import StudyView, TrialDetail

_WIDTH = 24  # of a learning curve [letters]


def compare(
    context: typer.Context,
    name: Name,
    numbers: Annotated[
        list[int], typer.Argument(metavar="TRIAL TRIAL...", min=0, help="Two trials or more.")
    ],
    as_json: AsJson = False,
) -> None:
    """Show trials side by side: how they ended, and their knobs, those that differ first.

    A `*` marks a knob that differs.
    """
    wanted = list(dict.fromkeys(numbers))
    if len(wanted) < 2:
        raise InvalidInput.of("TRIAL", "one trial has nothing to differ from", "name two or more")
    studies = client_of(context).studies
    study = studies.get(name)
    trials = [studies.trial(name, number) for number in wanted]
    if as_json:
        differing = [knob for knob in shown.searched(study) if _differs(knob, trials)]
        whole = [trial.model_dump(mode="json", by_alias=True) for trial in trials]
        print_json({"study": name, "differing": differing, "trials": whole})
    else:
        columns = ["", "", *(f"trial {trial.number}" for trial in trials)]
        print_table(columns, compared(study, trials))


def compared(study: StudyView, trials: Sequence[TrialDetail]) -> list[list[Any]]:
    """Returns the rows: a mark, what it is, and each trial's; knobs that differ stand first."""
    metric = shown.metric(study)
    ends = [trial.curve[-1] if trial.curve else None for trial in trials]
    rows: list[list[Any]] = [
        ["", "state", *(str(trial.state) for trial in trials)],
        ["", metric, *(trial.value for trial in trials)],
        ["", "step", *(f"{trial.step}/{trial.max_step}" for trial in trials)],
        ["", "tokens", *(end.tokens if end else None for end in ends)],
        ["", "training time", *(seconds(end.wall_ms / 1_000) if end else None for end in ends)],
        ["", "attempts", *(trial.attempt for trial in trials)],
        ["", "curve", *(spark(curve(trial, metric), _WIDTH) for trial in trials)],
    ]
    knobs = sorted(shown.searched(study), key=lambda knob: not _differs(knob, trials))
    for knob in knobs:
        mark = "*" if _differs(knob, trials) else ""
        rows.append([mark, knob, *(trial.params.get(knob) for trial in trials)])
    return rows


def curve(trial: TrialDetail, metric: str) -> list[float]:
    """Returns the trial's reported values of a metric, by step."""
    return [point.metrics[metric] for point in trial.curve if metric in point.metrics]


def _differs(knob: str, trials: Sequence[TrialDetail]) -> bool:
    return any(trial.params.get(knob) != trials[0].params.get(knob) for trial in trials)
