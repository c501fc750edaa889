"""`lmtune import`: a study from another tool, brought in whole."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer

from studies.cli.context import client_of
from studies.cli.output import say
from studies.spec import METRICS

importing = typer.Typer(no_args_is_help=True, help="Bring a study in from another tool.")


@importing.command("optuna")
def from_optuna(
    context: typer.Context,
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL",
            help="Optuna's storage: sqlite:///FILE, postgresql://..., a journal file.",
        ),
    ],
    study: Annotated[
        str | None, typer.Option("--study", metavar="NAME", help="Its study [the only one].")
    ] = None,
    name: Annotated[str | None, typer.Option("--as", metavar="NAME", help="Name it so.")] = None,
    metric: Annotated[
        str, typer.Option(help=f"What its values are: {', '.join(METRICS)}.")
    ] = "validation_loss",
) -> None:
    """Bring in an Optuna study: its trials with parameters, values, curves and states.

    It is looked at, compared and reported like any other, but has ENDED: lmtune does not know what
    its trials trained. A parameter keeps its name where lmtune has such a knob and its range fits
    it; any other is a name of the study's own. All of the study is brought in, or nothing.
    """
    from studies.cli.optuna_study import read  # Optuna takes a second to import

    found = read(url, study, name, metric)
    view = client_of(context).studies.bring_in(found.spec, found.trials)
    counts = Counter(str(trial.state) for trial in found.trials)
    states = ", ".join(f"{count} {state}" for state, count in counts.items())
    say(f"study {view.name}: {len(found.trials)} trials brought in ({states})")
    for note in found.notes:
        say(f"note: {note}")
