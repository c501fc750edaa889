"""A study's own training script as a process of its own, spoken to over two pipes.

Only scripts that the operator has listed are run, never a shell. The script is told no address and
no token: what it reports goes to this worker, which holds the lease.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import studies
from studies.errors import InvalidInput, TrialError
from studies.recipe import Recipe
from studies.script import ALLOWED, PIPES, listed
from studies.trial import Outcome
from studies.wire import ReportItem
from trainer import device
from trainer.loop import Reporter, TrainResult

logger = logging.getLogger(__name__)
GRACE_SECONDS: Final = 10.0  # from should_stop to SIGTERM; assumption
KILL_SECONDS: Final = 5.0  # from SIGTERM to SIGKILL; assumption
_POLL: Final = 0.1  # between looks for what the worker wants [s]
_HIDDEN: Final = "LMTUNE_"  # variables: the worker's, with address, token and where they lie
_TAIL: Final = 15  # lines of standard error that become a trial's reason


def allowed_command(command: tuple[str, ...]) -> list[str]:
    """Returns the command as it is run, its script by its whole path.

    Raises:
        InvalidInput: the operator of this worker has not listed the script.
    """
    said, path = listed(command)
    if path is not None:
        python = command[0] == "python" and len(command) > 1
        return [sys.executable, str(path), *command[2:]] if python else [str(path), *command[1:]]
    remedy = f"its operator adds it with `lmtune-worker --allow-script {said}` or {ALLOWED}"
    raise InvalidInput.of("model.command", f"this worker may not run {said}", remedy)


def run_script(recipe: Recipe, text: str | Path, folder: Path, reporter: Reporter) -> TrainResult:
    """Runs the recipe's script to its end; returns how it ended.

    Args:
        recipe: of kind script.
        text: the study's text or its file; the script is given a copy.
        folder: the attempt's own, where the script runs.
        reporter: told of each report; says when the script is to end.

    Raises:
        InvalidInput: the script may not be run here.
        TrialError: it cannot be started, it failed, or it reported nothing or nonsense.
    """
    command = allowed_command(recipe.model.command or ())
    file = folder / "text.txt"
    if isinstance(text, Path):
        shutil.copyfile(text, file)
    else:
        file.write_bytes(text.encode())
    said = {"kind": "begin", "params": params_of(recipe), "text": str(file)}
    where = {"device_name": device.short_name(device.choose_device()), "precision": "its own way"}
    reporter.started({**where, "script": command}, 0)
    with _Script(command, folder) as script:
        script.send(said)
        return _follow(script, reporter)


def params_of(recipe: Recipe) -> dict[str, Any]:
    """Returns what a script is given: every knob by name, and the study's own names."""
    document = recipe.model_dump(mode="json", by_alias=True)
    left_out = ("builtin", "path", "sha256", "kind", "command")
    knobs = {**document["data"], **document["model"], **document["train"]}
    return {k: v for k, v in knobs.items() if k not in left_out} | document["own"]


def _follow(script: _Script, reporter: Reporter) -> TrainResult:
    """Passes reports on and the wish to end in, until the script is over."""
    step, stopped = 0, False
    ending: Outcome | None = None
    while (messages := script.receive()) is not None:
        for message in messages:
            stopped = stopped or bool(message.get("stopped"))
            if message.get("kind") == "report":
                step = _pass_on(message, step, reporter)
        if ending is None and (ending := reporter.ending(step)) is not None:
            script.stop()
        script.hasten()
    code = script.wait()
    ending = ending or reporter.ending(step)
    if ending is not None and (stopped or script.forced):
        return TrainResult(ending, step, None)
    if code != 0:
        raise TrialError(f"the script ended with {_named(code)}: {script.last_words()}")
    if step == 0:
        raise TrialError("the script ended without a report; call t.report(step=..., ...)")
    return TrainResult(Outcome.OK, step, None)


def _pass_on(message: Mapping[str, Any], last: int, reporter: Reporter) -> int:
    """Reports what the script said; returns its step."""
    try:
        item = ReportItem.model_validate({k: v for k, v in message.items() if k != "kind"})
    except ValueError as error:
        raise TrialError(f"the script's report {message} is no report: {error}") from None
    if item.step <= last:
        raise TrialError(f"the script reported step {item.step} after step {last}; steps must rise")
    reporter.report(item)
    return item.step


def _named(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"code {code}"


class _Script:
    """The running process with its session, pipes and output; none is left behind."""

    forced = False  # it did not end by itself

    def __init__(self, command: list[str], folder: Path) -> None:
        theirs_in, self._to = os.pipe()
        self._from, theirs_out = os.pipe()
        root = str(Path(studies.__file__).parents[1])  # where the script finds the client
        paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        environment = {k: v for k, v in os.environ.items() if not k.startswith(_HIDDEN)}
        environment |= {PIPES: f"{theirs_in},{theirs_out}", "PYTHONPATH": paths}
        try:
            with _signals_as_usual():
                self._process = subprocess.Popen(  # noqa: S603 - the operator has listed it
                    command, cwd=folder, env=environment, pass_fds=(theirs_in, theirs_out),
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                    start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            os.close(self._to)
            os.close(self._from)
            raise TrialError(f"cannot start {command[0]}: {error.strerror}") from None
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        self._asked = 0.0  # when it was asked to stop [monotonic s]
        self._rest = b""  # of a line that has not come whole
        self._tail: deque[str] = deque(maxlen=_TAIL)
        self._readers = [
            threading.Thread(target=self._log, args=(stream, keep), daemon=True)
            for stream, keep in ((self._process.stdout, False), (self._process.stderr, True))
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> _Script:
        return self

    def __exit__(self, *_: object) -> None:
        self._signal(signal.SIGKILL)  # what it started, too
        self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def send(self, message: Mapping[str, Any]) -> None:
        """Sends a line; a script that is gone or does not listen misses it."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._to, json.dumps(message).encode() + b"\n")

    def receive(self) -> list[dict[str, Any]] | None:
        """Returns what came within 0.1 s, or None once the script is over and all was read."""
        over = self._process.poll() is not None  # looked at first: what it said is there then
        if not select.select([self._from], [], [], 0 if over else _POLL)[0]:
            return None if over else []
        data = os.read(self._from, 1 << 16)
        if not data:  # it has closed its end
            if not over:
                time.sleep(_POLL)
            return None if over else []
        *lines, self._rest = (self._rest + data).split(b"\n")
        try:
            messages = [json.loads(line) for line in lines if line.strip()]
        except ValueError as error:
            raise TrialError(f"the script said what is no JSON line: {error}") from None
        return [m if isinstance(m, dict) else {"kind": "report", "said": m} for m in messages]

    def stop(self) -> None:
        """Asks the script to end soon."""
        self._asked = time.monotonic()
        self.send({"kind": "stop"})

    def hasten(self) -> None:
        """Ends a script that was asked to and goes on: SIGTERM first, SIGKILL later."""
        waited = time.monotonic() - self._asked if self._asked else 0.0
        if waited > GRACE_SECONDS + KILL_SECONDS:
            self._signal(signal.SIGKILL)
        elif waited > GRACE_SECONDS and not self.forced:
            logger.warning("the script does not end: SIGTERM")
            self.forced = True
            self._signal(signal.SIGTERM)

    def wait(self) -> int:
        """Returns the exit code of a script that is over, its output read."""
        self._signal(signal.SIGKILL)  # processes it left, which may hold its output open
        for reader in self._readers:
            reader.join(KILL_SECONDS)
        return self._process.wait()

    def last_words(self) -> str:
        """Returns the end of its standard error."""
        return "\n".join(self._tail)[-1_500:] or "it said nothing on standard error"

    def _log(self, stream: Any, keep: bool) -> None:
        with stream:
            for line in stream:
                text = line.decode(errors="replace").rstrip()
                logger.info("%s", text)
                if keep and text:
                    self._tail.append(text)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


@contextlib.contextmanager
def _signals_as_usual() -> Iterator[None]:
    """What starts now heeds SIGINT and SIGTERM: an ignored signal would stay so in it."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = [signal.signal(number, lambda *_: None) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
