"""What is done with a study's winner: its checkpoint downloaded, and tested on the test split."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from studies.cli.context import Name, client_of
from studies.cli.output import say
from studies.cli.reproduce import run_trainer
from studies.client import Client
from studies.errors import InvalidInput, LmtuneError
from studies.wire import TrialDetail

Trial = Annotated[
    int | None, typer.Option("--trial", metavar="N", min=0, help="This trial [the best].")
]


def judge(context: typer.Context, name: Name, number: Trial = None) -> None:
    """Evaluate the best trial's checkpoint on the test split, which no tuning has seen.

    Runs on this machine. Do it once, when the study has ended: a trial that is chosen for its test
    loss is no longer tested by it.
    """
    client = client_of(context)
    trial = _chosen(client, name, number)
    if not trial.recipe.data.has_test:
        remedy = "set data.test_fraction in a new study, or give data that has a test split"
        raise InvalidInput.of("data.test_fraction", f"{name} keeps no test split back", remedy)
    with tempfile.TemporaryDirectory(prefix="lmtune-") as folder:
        weights = Path(folder, "checkpoint")
        client.studies.checkpoint(name, trial.number, weights)
        say(f"trial {trial.number} of {name}: validation loss {trial.value:.4f} when it was chosen")
        if not run_trainer(client, trial, Path(folder), "--from", weights, "--test"):
            raise LmtuneError("the worker reported nothing; see the lines above")


def checkpoint(
    context: typer.Context,
    name: Name,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Write here.")],
    number: Trial = None,
) -> None:
    """Download a trial's checkpoint (safetensors): weights, optimizer state and counters."""
    client = client_of(context)
    trial = _chosen(client, name, number)
    size = client.studies.checkpoint(name, trial.number, output)
    say(f"{output}: the checkpoint of trial {trial.number}, {size / 1e6:.1f} MB")


def _chosen(client: Client, name: str, number: int | None) -> TrialDetail:
    studies = client.studies
    return studies.best(name) if number is None else studies.trial(name, number)
