"""`lmtune reproduce`: trains a trial again, alone, and compares the losses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from studies.cli.context import Name, client_of
from studies.cli.exits import FAILED
from studies.cli.output import say
from studies.client import Client
from studies.errors import InvalidInput, LmtuneError
from studies.wire import TrialDetail

_SAME: Final = ("device_name", "driver", "threads", "torch", "python", "git_commit", "precision")


def reproduce(
    context: typer.Context,
    name: Name,
    trial: Annotated[int, typer.Argument(metavar="TRIAL", min=0, help="The trial's number.")],
) -> None:
    """Train a trial again on this machine, alone, and say whether its losses come out the same.

    Exit code 0 where every loss is equal to the last bit, 1 where one is not.
    """
    client = client_of(context)
    detail = client.studies.trial(name, trial)
    told = {p.step: p.metrics["validation_loss"] for p in detail.curve}
    if not told:
        raise InvalidInput.of("TRIAL", f"trial {trial} has reported nothing", "name another one")
    with tempfile.TemporaryDirectory(prefix="lmtune-") as folder:
        environment, again = _train(client, detail, max(told), Path(folder))
    _say_environments(detail, environment)
    far = {step: abs(again[step] - loss) for step, loss in told.items() if again[step] != loss}
    if not far:
        say(f"bit-equal: all {len(told)} losses are the same")
        return
    worst = max(far, key=lambda step: far[step])
    say(
        f"not bit-equal: {len(far)} of {len(told)} losses differ, first at step {min(far)}, most at"
        f" step {worst}: {told[worst]:.6f} then, {again[worst]:.6f} now ({far[worst]:.2g} apart)"
    )
    raise typer.Exit(FAILED)


def _train(
    client: Client, trial: TrialDetail, until: int, folder: Path
) -> tuple[Mapping[str, Any], dict[int, float]]:
    """Returns where the trial was trained again, and its losses by step."""
    environment, *rows = run_trainer(client, trial, folder, "--until", until)
    losses = {row["step"]: row["metrics"]["validation_loss"] for row in rows}
    if missing := {p.step for p in trial.curve} - losses.keys():
        raise LmtuneError(f"the training ended before step {min(missing)}; see the lines above")
    return environment, losses


def run_trainer(
    client: Client, trial: TrialDetail, folder: Path, *options: str | Path | int
) -> list[dict[str, Any]]:
    """Runs `lmtune-worker --recipe` on a trial's recipe and text; returns what it reports."""
    recipe = trial.recipe.model_dump(mode="json", by_alias=True)
    if sha256 := recipe["data"].pop("sha256"):
        text = folder / "text"
        if client.data.download(sha256, text) != sha256:
            raise LmtuneError(f"the server sent another text than {sha256}")
        recipe["data"]["path"] = str(text)
    file, reports = folder / "recipe.json", folder / "reports.jsonl"
    file.write_text(json.dumps(recipe), encoding="utf-8")
    command = [sys.executable, "-m", "trainer", "--recipe", file, "--reports", reports, *options]
    environment = {**os.environ, **_threads(trial)}
    done = subprocess.run(list(map(str, command)), env=environment, check=False)  # noqa: S603
    if not reports.exists():
        raise LmtuneError(f"the worker ended with code {done.returncode}; see the lines above")
    return [json.loads(line) for line in reports.read_text(encoding="utf-8").splitlines()]


def _threads(trial: TrialDetail) -> dict[str, str]:
    """Returns the setting that gives this machine's CPU the trial's threads: sums depend on it."""
    known = [a.environment["threads"] for a in trial.attempts if "threads" in a.environment]
    return {"OMP_NUM_THREADS": str(known[-1])} if known else {}


def _say_environments(trial: TrialDetail, now: Mapping[str, Any]) -> None:
    """Says in what this machine differs from those of the trial."""
    for attempt in trial.attempts:
        then = attempt.environment
        for fact in _SAME:
            if fact in then and then[fact] != now.get(fact):
                say(f"{fact}: {then[fact]} in attempt {attempt.attempt}, {now.get(fact)} now")
