"""`lmtune reproduce`: trains a trial again, alone, and compares the losses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from studies.cli.context import Name, client_of
from studies.cli.exits import FAILED
from studies.cli.output import say
from studies.client import Client
from studies.errors import InvalidInput, LmtuneError
from studies.wire import TrialDetail

_SAME: Final = (  # facts of an environment on which a loss's last bits may depend
    *("device", "device_name", "devices", "precision", "emulated", "threads", "driver", "cuda"),
    *("python", "torch", "numpy", "safetensors", "transformers", "lmtune", "git_commit"),
    *("tokenizer_sha256", "initial_weights_sha256", "model_config_sha256"),
)
_PARTED: Final = (
    "a batch shared out among other devices or parts: its sums are rounded in another order, and"
    " dropout draws other masks"
)
_ANY_ORDER: Final = (
    "on CUDA without train.deterministic: no two runs need be equal to the last bit, even there"
)


def reproduce(
    context: typer.Context,
    name: Name,
    trial: Annotated[int, typer.Argument(metavar="TRIAL", min=0, help="The trial's number.")],
) -> None:
    """Train a trial again on this machine, alone, and say whether its losses come out the same.

    On one device, whatever the trial had; what is known to differ is said first.

    Exit code 0 where every loss is equal to the last bit, 1 where one is not.
    """
    client = client_of(context)
    detail = client.studies.trial(name, trial)
    told = {p.step: p.metrics["validation_loss"] for p in detail.curve}
    if not told:
        raise InvalidInput.of("TRIAL", f"trial {trial} has reported nothing", "name another one")
    with tempfile.TemporaryDirectory(prefix="lmtune-") as folder:
        environment, metrics = _train(client, detail, max(told), Path(folder))
    for difference in _differences(detail, environment, metrics):
        say(difference)
    again = {step: metrics[step]["validation_loss"] for step in told}
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
) -> tuple[Mapping[str, Any], dict[int, Mapping[str, float]]]:
    """Returns where the trial was trained again, and what it reported by step."""
    environment, *rows = run_trainer(client, trial, folder, "--until", until)
    metrics = {row["step"]: row["metrics"] for row in rows}
    if missing := {p.step for p in trial.curve} - metrics.keys():
        raise LmtuneError(f"the training ended before step {min(missing)}; see the lines above")
    return environment, metrics


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


def _differences(
    trial: TrialDetail, now: Mapping[str, Any], again: Mapping[int, Mapping[str, float]]
) -> Iterator[str]:
    """Yields in what this training differs from the trial's, and why that may change a loss."""
    facts = list(_of_environments(trial, now))
    for attempt, fact, then in facts:
        yield f"{fact}: {then} in attempt {attempt}, {now.get(fact)} now"
    parted = list(_of_parts(trial, again))
    yield from parted
    if parted or any(fact == "devices" for _, fact, _ in facts):
        yield _PARTED
    devices = {now.get("device"), *(a.environment.get("device") for a in trial.attempts)}
    if "cuda" in devices and not trial.recipe.train.deterministic:
        yield _ANY_ORDER


def _of_environments(trial: TrialDetail, now: Mapping[str, Any]) -> Iterator[tuple[int, str, Any]]:
    """Yields attempt, fact and what it was, where it is another on this machine."""
    for attempt in trial.attempts:
        then = attempt.environment
        for fact in _SAME:
            if fact in then and then[fact] != now.get(fact):
                yield attempt.attempt, fact, then[fact]


def _of_parts(trial: TrialDetail, again: Mapping[int, Mapping[str, float]]) -> Iterator[str]:
    """Yields where the trial's batches, halved for memory, were first computed in other parts."""
    for point in trial.curve:
        then, now = point.metrics.get("batch_parts"), again[point.step].get("batch_parts")
        if None not in (then, now) and then != now:
            yield f"batch_parts: {then:g} at step {point.step}, {now:g} now"
            return
