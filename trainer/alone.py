"""Trains or tests one recipe with no server: a progress bar, the losses, the final checkpoint."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from studies.corpus import file_sha256
from studies.documents import resolve
from studies.errors import InvalidInput
from studies.recipe import Recipe
from studies.spec import load_recipe
from studies.trial import Outcome
from studies.wire import ReportItem
from trainer.checkpoint import CheckpointFile
from trainer.loop import TrainResult, Write, train
from trainer.ranks import leave
from trainer.run import Run


@dataclass(frozen=True)
class Files:
    """What is read and written besides the recipe."""

    out: Path | None = None  # the checkpoint that counts
    start: Path | None = None  # a checkpoint to go on from: of this recipe, or of its trunk
    reports: Path | None = None  # a line of JSON for the environment, and one per report

    def check(self) -> None:
        """Raises InvalidInput where one cannot be read or written."""
        for option, path in (("--out", self.out), ("--reports", self.reports)):
            if path is None:
                continue
            if not path.parent.is_dir():
                raise InvalidInput.of(option, f"there is no folder {path.parent}", "make it first")
            if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
                raise InvalidInput.of(option, f"{path} cannot be written", "name another file")
        if self.start is not None and not self.start.is_file():
            raise InvalidInput.of("--from", f"there is no file {self.start}", "name a checkpoint")

    def write(self, line: Mapping[str, Any]) -> None:
        """Adds a line to the reports, if they are asked for."""
        if self.reports is not None:
            with self.reports.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


class _Shown:
    """A reporter for people; and it keeps the checkpoint that counts."""

    def __init__(self, bar: Progress, until: int, folder: Path, files: Files) -> None:
        self._bar, self._folder, self._files, self._until = bar, folder, files, until
        self._task = bar.add_task("training", total=until, loss="")
        self.losses: dict[int, float] = {}  # by step
        self._kept: dict[str, tuple[int, Path]] = {}  # the best and the newest: (step, file)

    def started(self, environment: Mapping[str, Any], step: int) -> None:
        """Says on what it trains, and what knowing only frequencies would give."""
        self._files.write(environment)
        emulated = ", emulated" if environment["emulated"] else ""
        self._bar.console.print(
            f"{environment['parameters']:,} parameters on {environment['device']} in "
            f"{environment['precision']}{emulated}; unigram model "
            f"{environment['unigram_loss']:.4f} nats per token"
        )

    def report(self, item: ReportItem) -> None:
        """Prints the evaluation."""
        self._files.write(item.model_dump(mode="json"))
        loss = self.losses[item.step] = item.metrics["validation_loss"]
        self._bar.update(self._task, completed=item.step, loss=f"validation loss {loss:.4f}")
        self._bar.console.print(
            f"step {item.step:>7}  validation loss {loss:.4f}  "
            f"train loss {item.metrics['train_loss']:.4f}  "
            f"{item.metrics['tokens_per_second']:,.0f} tokens/s"
        )

    def ending(self, step: int) -> Outcome | None:
        """Moves the bar; ends the run where it was told to."""
        self._bar.update(self._task, completed=step)
        return Outcome.PREEMPTED if step >= self._until else None

    def start(self) -> CheckpointFile | None:
        """Returns the checkpoint that the command line names, if it does."""
        start = self._files.start
        return start and CheckpointFile(start, file_sha256(start))

    def keep(self, step: int, best: bool, write: Write) -> None:
        """Keeps the newest state and the best, where one is asked for; a full disk ends nothing."""
        if self._files.out is None:
            return
        which = "best" if best else "newest"
        try:
            self._kept[which] = (step, write(self._folder / f"{which}.safetensors").path)
        except OSError as error:
            self._bar.console.print(f"no checkpoint of step {step}, training goes on: {error}")

    def deliver(self, step: int) -> bool:
        """Copies the checkpoint of a step to where it is asked for; False: there is none."""
        out, files = self._files.out, dict(self._kept.values())
        try:
            if out is not None:
                shutil.copyfile(files[step], out)
        except (KeyError, OSError) as error:
            why = "this run has none of that step" if isinstance(error, KeyError) else error
            self._bar.console.print(f"no checkpoint of step {step} in {out}: {why}")
            return False
        return True


def run_alone(path: Path, files: Files, until: int | None, test: bool) -> int:
    """Trains the recipe, or only tests a checkpoint of it; returns the exit code."""
    return test_alone(path, files) if test else train_alone(path, files, until)


def train_alone(path: Path, files: Files, until: int | None = None) -> int:
    """Trains the recipe in a file; returns the exit code, 0 when all that was asked is there.

    Args:
        path: the recipe.
        files: what else is read and written.
        until: ends at this step, if it comes before the recipe's last one [steps].

    Raises:
        InvalidInput: a path or the recipe is wrong.
        CheckpointUnusable: the checkpoint to start from belongs to another run.
    """
    recipe, text = _load(path)
    files.check()
    last = min(until or recipe.train.steps, recipe.train.steps)
    columns = (TextColumn("{task.fields[loss]}"), BarColumn(), MofNCompleteColumn())
    console = Console(file=sys.stdout, quiet=_is_helper())
    with (
        tempfile.TemporaryDirectory(prefix="lmtune-") as folder,
        Progress(*columns, TimeRemainingColumn(), console=console) as bar,
    ):
        shown = _Shown(bar, last, Path(folder), files)
        result = _train(recipe, text, shown)
        if result.outcome not in (Outcome.OK, Outcome.PREEMPTED):
            console.print(f"ended {result.outcome}: {result.reason}")
            return 1
        delivered = _is_helper() or shown.deliver(result.final_step)
    final = result.final_step
    if final not in shown.losses:
        console.print(f"ended at step {final}")
    else:
        loss = shown.losses[final]
        console.print(f"step {final} counts: validation loss {loss:.4f} nats per token")
    return 0 if delivered else 1


def test_alone(path: Path, files: Files) -> int:
    """Prints the loss of a checkpoint on the test split of its recipe's text; returns 0.

    Raises:
        InvalidInput: there is no checkpoint, or the recipe keeps no test split back.
        CheckpointUnusable: the checkpoint belongs to another run.
    """
    recipe, text = _load(path)
    files.check()
    if files.start is None:
        raise InvalidInput.of("--test", "there is nothing to test", "add --from CHECKPOINT")
    if not recipe.data.has_test:
        remedy = "set data.test_fraction before tuning, or give data with a split of its own"
        raise InvalidInput.of("data.test_fraction", "no test split was kept back", remedy)
    run = Run(recipe, text)
    run.resume(CheckpointFile(files.start, file_sha256(files.start)))
    metrics = run.test()
    files.write({"step": run.progress.step, "metrics": metrics})
    shown = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in metrics.items())
    Console(file=sys.stdout, highlight=False).print(f"step {run.progress.step}: {shown}")
    return 0


def _load(path: Path) -> tuple[Recipe, str]:
    """Returns the recipe of a file, its text named by hash, and the text."""
    recipe = load_recipe(path)
    if recipe.model.kind == "script":
        remedy = "run the script itself, its values as JSON in LMTUNE_PARAMS"
        raise InvalidInput.of("model.kind", "a script needs no worker to train alone", remedy)
    if recipe.data.sha256 is not None:
        remedy = "name the file: `data: {path: FILE}`"
        raise InvalidInput.of("data.sha256", "an uploaded text cannot be fetched here", remedy)
    data, text = resolve(recipe.data)
    return recipe.model_copy(update={"data": data}), text


def _is_helper() -> bool:
    """True in the processes beside the first that torchrun starts: they say nothing."""
    return os.environ.get("RANK", "0") != "0"


def _train(recipe: Recipe, text: str, shown: _Shown) -> TrainResult:
    try:
        return train(recipe, text, shown, shown)
    finally:
        leave()
