"""The warm process that owns torch: one on a device, trial after trial; it may crash.

Its parent, the supervisor, speaks JSON over a pipe. A crash of a trial ends at most this process.

    parent -> child   train: recipe, text, start, folder    end: outcome    quit
    child -> parent   ready, started, step, report, checkpoint, unusable, result, error
"""

from __future__ import annotations

import contextlib
import gc
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from studies.corpus import load_text
from studies.errors import InvalidInput
from studies.recipe import Recipe
from studies.trial import Outcome
from studies.wire import ReportItem
from trainer import device
from trainer.checkpoint import CheckpointFile, CheckpointUnusable
from trainer.loop import Write, train
from trainer.pipe import Pipe

STEP_SECONDS: Final = 0.5  # at least so long between two tellings of the step


class PipeReporter:
    """Tells the parent what the run does, and hears from it when to end."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._ending: Outcome | None = None
        self._told = 0.0  # when the step was last told [monotonic s]

    def started(self, environment: Mapping[str, Any], step: int) -> None:
        """Tells where the run is built."""
        self._pipe.send("started", environment=dict(environment), step=step)

    def report(self, item: ReportItem) -> None:
        """Passes an evaluation on; the parent stores it while training goes on."""
        self._pipe.send("report", item=item.model_dump(mode="json"))

    def ending(self, step: int) -> Outcome | None:
        """Returns what the parent asked for, if anything."""
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
        """Writes the state and tells the parent where it lies."""
        file = write(self._folder / f"step-{step}.safetensors")
        self._pipe.send("checkpoint", step=step, path=str(file.path), sha256=file.sha256, best=best)


def train_one(pipe: Pipe, order: Mapping[str, Any]) -> None:
    """Trains as ordered; how it ended goes to the parent, whatever it was."""
    try:
        recipe = Recipe.model_validate(order["recipe"])
        start = order["start"] and CheckpointFile(Path(order["start"][0]), order["start"][1])
        text = load_text(recipe.data, lambda _: Path(order["text"]))
        reporter = PipeReporter(pipe)
        result = train(recipe, text, reporter, PipeCheckpoints(pipe, Path(order["folder"]), start))
    except CheckpointUnusable as error:
        pipe.send("unusable", reason=str(error))
    except (EOFError, ConnectionError):
        raise  # the parent is gone
    except Exception as error:
        reason = str(error) if isinstance(error, InvalidInput) else f"{error!r}"
        pipe.send("error", reason=reason[:2_000], trace=traceback.format_exc()[-20_000:])
    else:
        pipe.send(
            "result", outcome=result.outcome, final_step=result.final_step, reason=result.reason
        )


def serve(pipe: Pipe) -> None:
    """Trains what it is told to until it is told to quit; raises EOFError without a parent."""
    gc.freeze()  # what the imports made stays: the collection after each trial passes over it
    pipe.send("ready", device=device.short_name(device.choose_device()))
    while (order := pipe.receive()) is not None and order["kind"] != "quit":
        if order["kind"] == "train":  # an `end` may come too late for its trial
            train_one(pipe, order)
            device.release_memory()  # again: a failed trial's frames held it until here


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
    with contextlib.suppress(EOFError, ConnectionError):  # the parent is gone
        serve(Pipe(Connection(int(sys.argv[1]))))


if __name__ == "__main__":
    main()
