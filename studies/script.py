"""What a training script of one's own sees of its trial; the standard library only.

    from studies.client import current_trial

    with current_trial(defaults={"units": 64}) as t:
        ... t.params["units"] ...
        t.report(step=10, validation_loss=2.5)
        if t.should_stop: break

Under a worker the trial speaks JSON lines over two inherited pipes (docs/custom-scripts.md); a
script needs neither address nor token. Run by hand it prints what it reports.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TextIO

PIPES: Final = "LMTUNE_TRIAL"  # "READ,WRITE": the file descriptors, set by a worker
ALLOWED: Final = "LMTUNE_ALLOW_SCRIPTS"  # a worker's: paths, separated as in PATH
PARAMS: Final = "LMTUNE_PARAMS"  # alone: values as a JSON mapping


class Trial:
    """One trial: its values, a place for reports, and whether it is to stop; from one thread."""

    def __init__(self, said: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        self.params: dict[str, Any] = {**defaults, **said.get("params", {})}
        self.text: str | None = said.get("text")  # the file of the study's text
        self._stop = threading.Event()
        self._step = 0

    @property
    def should_stop(self) -> bool:
        """True once the script is to end soon: stopped, paused or cancelled, or the worker goes."""
        return self._stop.is_set()

    def report(self, *, step: int, validation_loss: float, **metrics: float) -> None:
        """Reports an evaluation.

        Args:
            step: above that of the report before; at least 1 [steps].
            validation_loss: what a study minimizes unless its objective says otherwise.
            metrics: further numbers by name.

        Raises:
            ValueError: the step does not rise, or a metric is no number.
        """
        if isinstance(step, bool) or int(step) != step or step <= self._step:
            raise ValueError(f"step {step!r}: give an integer above {self._step}, the last step")
        said = {
            name: _number(name, value)
            for name, value in {"validation_loss": validation_loss, **metrics}.items()
        }
        self._step = int(step)
        self._send("report", step=self._step, metrics=said)

    def __enter__(self) -> Trial:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Says how the script ended; an exception is told by its exit code and standard error."""
        if kind is None:
            self._send("done", stopped=self.should_stop)

    def _send(self, kind: str, **content: Any) -> None:
        if kind == "report":
            sys.stdout.write(f"step {content['step']}: {content['metrics']}\n")


class _WorkerTrial(Trial):
    """A trial under a worker."""

    def __init__(self, reads: TextIO, writes: TextIO, defaults: Mapping[str, Any]) -> None:
        super().__init__(json.loads(reads.readline()), defaults)
        self._reads, self._writes = reads, writes
        threading.Thread(target=self._listen, name="lmtune", daemon=True).start()

    def _send(self, kind: str, **content: Any) -> None:
        self._writes.write(json.dumps({"kind": kind, **content}) + "\n")
        self._writes.flush()

    def _listen(self) -> None:
        """Hears the worker; where it is gone, ends this process group, which nobody else would."""
        for line in self._reads:
            if json.loads(line)["kind"] == "stop":
                self._stop.set()
        os.killpg(os.getpgrp(), signal.SIGKILL)


def _number(name: str, value: Any) -> float | str:
    """Returns the number as JSON carries it; arrays of one element and tensors are numbers too."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: {value!r} is no number") from None
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def listed(command: Sequence[str]) -> tuple[str, Path | None]:
    """Returns the script as the command names it, and its file where `ALLOWED` lists it."""
    said = command[1] if command[0] == "python" and len(command) > 1 else command[0]
    for path in [Path(p).resolve() for p in os.environ.get(ALLOWED, "").split(os.pathsep) if p]:
        if said == path.name or Path(said).resolve() == path:
            return said, path
    return said, None


def current_trial(defaults: Mapping[str, Any] | None = None) -> Trial:
    """Returns the trial that this script trains; under no worker, one for trying the script alone.

    Args:
        defaults: values of the names that are not given by the study or, alone, `LMTUNE_PARAMS`.

    Raises:
        ValueError: `LMTUNE_PARAMS` is no JSON mapping.
    """
    pipes = os.environ.pop(PIPES, None)  # a process that the script starts is no trial
    if pipes is not None:
        reads, writes = (int(number) for number in pipes.split(","))
        os.set_inheritable(reads, False)
        os.set_inheritable(writes, False)
        return _WorkerTrial(
            os.fdopen(reads, encoding="utf-8"),
            os.fdopen(writes, "w", encoding="utf-8"),
            defaults or {},
        )
    try:
        params = json.loads(os.environ.get(PARAMS, "{}"))
    except ValueError:
        params = None
    if not isinstance(params, dict):
        raise ValueError(f'{PARAMS} is no JSON mapping; write as {{"seed": 1}}')
    return Trial({"params": params}, {"seed": 0, **(defaults or {})})
