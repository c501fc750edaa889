"""Trains one recipe with no server: a progress bar, the losses, and the final checkpoint."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from studies.corpus import load_text
from studies.errors import InvalidInput
from studies.spec import load_recipe
from studies.trial import Outcome
from studies.wire import ReportItem
from trainer.checkpoint import CheckpointFile
from trainer.loop import Write, train


class _Shown:
    """A reporter for people; and it keeps the checkpoint that counts."""

    def __init__(self, bar: Progress, steps: int, folder: Path) -> None:
        self._bar, self._folder = bar, folder
        self._task = bar.add_task("training", total=steps, loss="")
        self.losses: dict[int, float] = {}  # by step
        self.kept: dict[str, tuple[int, Path]] = {}  # the best and the newest: (step, file)

    def started(self, environment: Mapping[str, Any], step: int) -> None:
        """Says on what it trains, and what knowing only frequencies would give."""
        emulated = ", emulated" if environment["emulated"] else ""
        self._bar.console.print(
            f"{environment['parameters']:,} parameters on {environment['device']} in "
            f"{environment['precision']}{emulated}; unigram model "
            f"{environment['unigram_loss']:.4f} nats per token"
        )

    def report(self, item: ReportItem) -> None:
        """Prints the evaluation."""
        loss = self.losses[item.step] = item.metrics["validation_loss"]
        self._bar.update(self._task, loss=f"validation loss {loss:.4f}")
        self._bar.console.print(
            f"step {item.step:>7}  validation loss {loss:.4f}  "
            f"train loss {item.metrics['train_loss']:.4f}  "
            f"{item.metrics['tokens_per_second']:,.0f} tokens/s"
        )

    def ending(self, step: int) -> Outcome | None:
        """Moves the bar; the run goes on."""
        self._bar.update(self._task, completed=step)
        return None

    def start(self) -> CheckpointFile | None:
        """Returns None: begins anew."""
        return None

    def keep(self, step: int, best: bool, write: Write) -> None:
        """Keeps the newest state and the best one."""
        which = "best" if best else "newest"
        self.kept[which] = (step, write(self._folder / f"{which}.safetensors").path)


def train_alone(path: Path, out: Path | None) -> int:
    """Trains the recipe in a file; returns the exit code, 0 when it trained to its end."""
    recipe = load_recipe(path)
    if recipe.data.sha256 is not None:
        remedy = "name the file: `data: {path: FILE}`"
        raise InvalidInput.of("data.sha256", "an uploaded text cannot be fetched here", remedy)
    if out is not None and not out.parent.is_dir():
        raise InvalidInput.of("--out", f"there is no folder {out.parent}", "make it first")
    columns = (TextColumn("{task.fields[loss]}"), BarColumn(), MofNCompleteColumn())
    console = Console(file=sys.stdout)
    text = load_text(recipe.data, Path)
    with (
        tempfile.TemporaryDirectory(prefix="lmtune-") as folder,
        Progress(*columns, TimeRemainingColumn(), console=console) as bar,
    ):
        shown = _Shown(bar, recipe.train.steps, Path(folder))
        result = train(recipe, text, shown, shown)
        if result.outcome is not Outcome.OK:
            console.print(f"ended {result.outcome}: {result.reason}")
            return 1
        if out is not None:
            shutil.copyfile(dict(shown.kept.values())[result.final_step], out)
    final = result.final_step
    console.print(f"step {final} counts: validation loss {shown.losses[final]:.4f} nats per token")
    return 0
