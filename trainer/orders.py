"""What the warm process that owns torch does: trial after trial, as it is told; it may crash.

Its parent, the supervisor, speaks JSON over a pipe. A crash of a trial ends at most this process.

    parent -> child   train: recipe, text, start, folder    end: outcome    quit
    child -> parent   ready, started, step, report, checkpoint, unusable, result, error, log
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from studies.corpus import builtin_text
from studies.errors import InvalidInput, TrialError
from studies.recipe import Recipe
from studies.trial import Outcome
from studies.wire import ReportItem
from trainer import device
from trainer.checkpoint import CheckpointFile, CheckpointUnusable
from trainer.loop import TrainResult, Write, train
from trainer.pipe import Pipe
from trainer.precision import native_precisions
from trainer.script import run_script

logger = logging.getLogger(__name__)
STEP_SECONDS: Final = 0.5  # at least so long between two tellings of the step


class PipeReporter:
    """Tells the parent what the run does, and hears from it when to end."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._ending: Outcome | None = None
        self._told = 0.0  # when the step was last told [monotonic s]
        self._first = self._last = 0.0  # when the first step began, the last report came [unix s]

    @property
    def trained(self) -> tuple[float, float]:
        """When the first step began and the last report was made, if there were any [unix s]."""
        return self._first, max(self._first, self._last)

    def started(self, environment: Mapping[str, Any], step: int) -> None:
        """Tells where the run is built."""
        self._pipe.send("started", environment=dict(environment), step=step)

    def report(self, item: ReportItem) -> None:
        """Passes an evaluation on; the parent stores it while training goes on."""
        self._last = time.time()
        self._pipe.send("report", step=item.step, item=item.model_dump(mode="json"))

    def ending(self, step: int) -> Outcome | None:
        """Returns what the parent asked for, if anything."""
        self._first = self._first or time.time()
        now = time.monotonic()
        if now - self._told > STEP_SECONDS:
            self._told = now
            self._pipe.send("step", step=step)
        while message := self._pipe.receive(0):
            if message["kind"] == "end":
                self._ending = Outcome(message["outcome"])
        return self._ending


class PipeCheckpoints:
    """Writes each state offered into a folder that the parent uploads from."""

    def __init__(self, pipe: Pipe, folder: Path, start: CheckpointFile | None) -> None:
        self._pipe, self._folder, self._start = pipe, folder, start

    def start(self) -> CheckpointFile | None:
        """Returns the checkpoint the parent downloaded, if any."""
        return self._start

    def keep(self, step: int, best: bool, write: Write) -> None:
        """Writes the state and tells the parent where it lies; passes it over on a full disk."""
        try:
            file = write(self._folder / f"step-{step}.safetensors")
        except OSError as error:
            logger.warning("no checkpoint of step %s, training goes on: %s", step, error)
            return
        self._pipe.send("checkpoint", step=step, path=str(file.path), sha256=file.sha256, best=best)


_builtin: Final = lru_cache(maxsize=1)(builtin_text)


def _file(said: Mapping[str, Any]) -> CheckpointFile:
    return CheckpointFile(Path(said["path"]), said["sha256"], said["step"])


def train_one(pipe: Pipe, order: Mapping[str, Any]) -> None:
    """Trains as ordered; how it ended goes to the parent, whatever it was."""
    try:
        recipe = Recipe.model_validate(order["recipe"])
        start = order["start"] and _file(order["start"])
        text = Path(order["text"]) if order["text"] else _builtin(recipe.data.builtin or "")
        reporter = PipeReporter(pipe)
        folder = Path(order["folder"])
        if recipe.model.kind != "script":
            result = train(recipe, text, reporter, PipeCheckpoints(pipe, folder, start))
        elif os.environ.get("RANK", "0") == "0":
            result = run_script(recipe, text, folder, reporter)
        else:  # a script is one process, and sees to its devices itself
            result = TrainResult(Outcome.OK, 0)
    except CheckpointUnusable as error:
        pipe.send("unusable", reason=str(error))
    except (EOFError, ConnectionError):
        raise  # the parent is gone
    except Exception as error:
        reason = str(error) if isinstance(error, InvalidInput | TrialError) else f"{error!r}"
        pipe.send("error", reason=reason[:2_000], trace=traceback.format_exc()[-20_000:])
    else:
        said = {"outcome": result.outcome, "final_step": result.final_step}
        pipe.send("result", **said, reason=result.reason, trained=reporter.trained)


def serve(pipe: Pipe) -> None:
    """Trains what it is told to until it is told to quit; raises EOFError without a parent."""
    gc.freeze()  # what the imports made stays: the collection after each trial passes over it
    ours = device.choose_device()
    has = {"memory": device.memory_bytes(ours), "precisions": native_precisions(ours)}
    pipe.send("ready", device=device.short_name(ours), **has)
    while (order := pipe.receive()) is not None and order["kind"] != "quit":
        if order["kind"] == "train":  # an `end` may come too late for its trial
            train_one(pipe, order)
            device.release_memory()  # again: a failed trial's frames held it until here
            gc.freeze()  # what torch imported meanwhile: a collection over it takes 100 ms


class PipeLog(logging.Handler):
    """Sends log lines and warnings to the parent, which has the server keep them."""

    def __init__(self, pipe: Pipe) -> None:
        super().__init__()
        self._pipe = pipe

    def emit(self, record: logging.LogRecord) -> None:
        """Sends a record; a parent that is gone is noticed elsewhere."""
        with contextlib.suppress(OSError):
            self._pipe.send("log", level=record.levelno, text=self.format(record)[-20_000:])


def _die_first() -> None:
    """Where memory runs out, has Linux end this process and not the supervisor or the server."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def main() -> None:
    """The process's entry: its pipe is the file descriptor named by the first argument.

    Signals are for the parent: Ctrl-C in a terminal reaches both, and only one may act on it.
    """
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    _die_first()
    pipe = Pipe(Connection(int(sys.argv[1])))
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[PipeLog(pipe)])
    logging.captureWarnings(capture=True)
    with contextlib.suppress(EOFError, ConnectionError):  # the parent is gone
        serve(pipe)
