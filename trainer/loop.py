"""The training loop: what happens between a recipe and the loss it reaches.

    result = train(recipe, text)

It knows no network and no other trial: reports and checkpoints go to two small interfaces, and
what is to happen to the run is asked of one of them at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from studies.errors import Diverged, OutOfMemory
from studies.recipe import Recipe
from studies.trial import Outcome
from studies.wire import ReportItem
from trainer import device
from trainer.checkpoint import CheckpointFile
from trainer.run import Run

Write = Callable[[Path], CheckpointFile]

_RESUMABLE: Final = (Outcome.PAUSED, Outcome.PREEMPTED)  # endings that need a checkpoint


class Reporter(Protocol):
    """Where a run tells what it does, and hears when to end; called from the training thread.

    No call may block for long: the device waits meanwhile.
    """

    def started(self, environment: Mapping[str, Any], step: int) -> None:
        """The run is built, at this step; `environment` says where and on what it trains."""

    def report(self, item: ReportItem) -> None:
        """An evaluation was made; steps rise."""

    def ending(self, step: int) -> Outcome | None:
        """Returns how the run is to end now, after `step` steps, or None to go on."""


class Checkpoints(Protocol):
    """Where a run's states go, and the one it starts from."""

    def start(self) -> CheckpointFile | None:
        """Returns the checkpoint to go on from, or None to begin."""

    def keep(self, step: int, best: bool, write: Write) -> None:
        """Offers the state after a step; nothing is copied or written unless `write` is called.

        Args:
            step: at least 1; the same step may be offered again.
            best: no evaluation so far was better.
            write: writes the state into a new file; valid during the call only.
        """


class NullReporter:
    """Hears nothing, never ends a run."""

    def started(self, environment: Mapping[str, Any], step: int) -> None:
        """Does nothing."""

    def report(self, item: ReportItem) -> None:
        """Does nothing."""

    def ending(self, step: int) -> Outcome | None:
        """Returns None."""
        return None


class NullCheckpoints:
    """Keeps nothing, begins anew."""

    def start(self) -> CheckpointFile | None:
        """Returns None."""
        return None

    def keep(self, step: int, best: bool, write: Write) -> None:
        """Does nothing."""


@dataclass(frozen=True)
class TrainResult:
    """How a run ended."""

    outcome: Outcome
    final_step: int  # whose value counts: the last, with early stopping the best, 0: none
    reason: str | None = None  # in words, for oom and diverged


_NO_REPORTER: Final = NullReporter()
_NO_CHECKPOINTS: Final = NullCheckpoints()


def train(
    recipe: Recipe,
    text: str | Path,
    reporter: Reporter = _NO_REPORTER,
    checkpoints: Checkpoints = _NO_CHECKPOINTS,
) -> TrainResult:
    """Returns how the run ended; its memory is free again.

    The same recipe, text and device give the same losses, resumed or not (bit for bit on the
    CPU). Uses torch's default random generators.

    Args:
        recipe: what is trained, and how.
        text: itself, or a file that holds it.
        reporter: hears of the run, and may end it.
        checkpoints: where its states go.

    Raises:
        InvalidInput: the text is too short for the recipe.
        CheckpointUnusable: the checkpoint to start from cannot be used.
    """
    try:
        with device.memory_kept(), device.algorithms(recipe.train.deterministic):
            return _train(recipe, text, reporter, checkpoints)
    except (Diverged, OutOfMemory) as error:
        outcome = Outcome.DIVERGED if isinstance(error, Diverged) else Outcome.OOM
        return TrainResult(outcome, 0, str(error))
    except Exception as error:
        if not device.is_out_of_memory(error):
            raise
        reason = device.out_of_memory_reason(error, device.choose_device())
        return TrainResult(Outcome.OOM, 0, reason)
    finally:
        device.release_memory()


def _train(
    recipe: Recipe, text: str | Path, reporter: Reporter, checkpoints: Checkpoints
) -> TrainResult:
    run = Run(recipe, text)
    if (start := checkpoints.start()) is not None:
        run.resume(start)
    if run.ranks.rank:  # rank 0 speaks for all
        reporter, checkpoints = _NO_REPORTER, _NO_CHECKPOINTS
    reporter.started(run.environment(), run.progress.step)
    offered = run.progress.step  # each state once: its file may be on its way to the server
    while not run.finished:
        if ending := run.ranks.agree(reporter.ending(run.progress.step)):
            if ending in _RESUMABLE and run.progress.step > offered:
                run.check()
                _offer(run, checkpoints)
            return TrainResult(ending, run.progress.step)
        run.step()
        if run.due:
            reporter.report(run.evaluate())
            _offer(run, checkpoints)
            offered = run.progress.step
    return TrainResult(Outcome.OK, run.final_step)


def _offer(run: Run, checkpoints: Checkpoints) -> None:
    checkpoints.keep(run.progress.step, run.progress.best_step == run.progress.step, run.save)
