"""The supervisor's handle of its child: started, spoken to, listened to, started again."""

from __future__ import annotations

import contextlib
import logging
import signal
import subprocess
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

from studies.errors import StartupError
from studies.trial import Outcome
from trainer.inbox import Inbox, Message
from trainer.pipe import Pipe
from trainer.spool import Spool
from trainer.team import ONE, Devices, Helpers, is_failure, spawn

logger = logging.getLogger(__name__)
child_logger = logging.getLogger("trainer.child")
START_SECONDS: Final = 300.0  # to import torch on a cold, busy disk; assumption
END_SECONDS: Final = 60.0  # for a child that was told to end a trial


class Child:
    """The warm process; `receive` says `died` once when it is gone, and why."""

    def __init__(self, devices: Devices = ONE) -> None:
        self.device = ""
        self.resources: dict[str, Any] = {}  # what a claim says of the worker, once it is ready
        self._devices, self._helpers = devices, Helpers([], lambda *_: None)
        self._failure: dict[str, Any] = {}  # how another device than the first failed, and why
        self._inbox = Inbox()
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Pipe | None = None

    @property
    def step(self) -> int:
        """The last step that the child told of the trial that it trains."""
        return self._inbox.step

    def start(self) -> None:
        """Starts the process unless it lives; returns when it is ready.

        Raises:
            StartupError: it did not come up.
        """
        if self._process is not None and self._process.poll() is None:
            return
        self._helpers.kill()
        first, *others = self._devices.places()
        self._process, self._pipe = spawn(first)
        self._helpers, self._failure = Helpers(others, partial(self._fail, self._process)), {}
        self._inbox = Inbox()
        said = (self._process, self._helpers, self._pipe, self._inbox)
        threading.Thread(target=self._listen, args=said, name="listener", daemon=True).start()
        ready = self.receive(START_SECONDS)
        if ready is None or ready["kind"] != "ready":
            self.kill()
            reason = "in time" if ready is None else f"({ready['reason']})"
            raise StartupError(
                f"the training process did not start {reason}; see the lines above. "
                "Is PyTorch installed? pip install 'lmtune[worker]'"
            )
        self.device = ready["device"]
        self.resources = {"devices": self._devices.count, "memory": ready["memory"]}
        self.resources |= {"precisions": ready["precisions"]}
        if self._devices.count > 1:
            self.device = f"{self._devices.count} x {self.device}"

    @property
    def count(self) -> int:
        """The devices that train a trial together."""
        return self._devices.count

    def send(self, kind: str, **content: Any) -> None:
        """Sends a message; one to a dead child is lost, and `died` follows. From any thread."""
        with contextlib.suppress(OSError):
            if self._pipe is not None:
                self._pipe.send(kind, **content)
        if kind in ("train", "quit"):  # what else there is to hear, the first tells the others
            self._helpers.send(kind, **content)

    def begin(self, folder: Path, step: int) -> None:
        """What comes now is of a new trial, from a step; its reports wait in the folder."""
        self._inbox.begin(Spool(folder / "reports.jsonl"), step)

    def receive(self, wait: float | None = None) -> Message | None:
        """Returns the child's next message, or None after `wait` [s]; None: waits for one."""
        return self._inbox.get(wait)

    def nudge(self) -> None:
        """Has who waits for a message look up: it gets one of kind `nudge`. From any thread."""
        self._inbox.put({"kind": "nudge"})

    def settle_down(self) -> None:
        """Waits for the end of a trial that was dropped; a child that does not end is killed."""
        end = time.monotonic() + END_SECONDS
        while (message := self.receive(max(0.0, end - time.monotonic()))) is not None:
            if message["kind"] in ("result", "error", "died", "unusable"):
                return
        logger.warning("the training process does not end its trial; it is started anew")
        self.kill()

    def kill(self) -> None:
        """Ends the process at once, and those beside it."""
        self._helpers.kill()
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Ends the process, which trains nothing now."""
        if self._process is None:
            return
        self.send("quit")
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()
        self._helpers.kill()

    def _fail(self, process: subprocess.Popen[bytes], outcome: Outcome, reason: str) -> None:
        """Ends all, as a device's part of the trial has failed: the others wait for it."""
        if process is self._process:
            self._failure = self._failure or {"outcome": outcome, "reason": reason}
        process.kill()

    def _listen(
        self, process: subprocess.Popen[bytes], helpers: Helpers, pipe: Pipe, inbox: Inbox
    ) -> None:
        """Drains the pipe, so that the child never waits for the server."""
        try:
            while True:
                message = pipe.receive()
                if message is not None and message["kind"] == "log":
                    child_logger.log(message["level"], message["text"])
                elif message is not None:
                    if self.count > 1 and is_failure(message):  # the others may be anywhere
                        self.kill()
                    inbox.put(message)
        except (EOFError, OSError):
            code = process.wait()
            helpers.kill()
            inbox.put({"kind": "died", "reason": self._last_words(code), **self._failure})

    @staticmethod
    def _last_words(code: int) -> str:
        if code >= 0:
            return f"the training process ended with code {code}"
        name = signal.Signals(-code).name
        hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        return f"the training process was ended by {name}{hint}"
