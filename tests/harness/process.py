"""One real process of a test: started with a log, ended by its own id, its children with it."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import psutil

ROOT = Path(__file__).parents[2]
# A machine with other work to do may take so many times as long as a test writes down before the
# test fails: a wait that is met costs nothing.
PATIENCE = 4
# Below those that Linux gives by default to whoever asks for any: nobody takes one by chance.
PORTS = range(20_000, 32_000)
_given: set[int] = set()
ResultT = TypeVar("ResultT")


def free_port() -> int:
    """Returns a TCP port of the loopback that was free a moment ago, and never the same again.

    pytest's processes share them out: what one gives another does not.
    """
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    mine = PORTS[number :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))]
    while True:
        port = random.SystemRandom().choice(mine)  # tests seed the plain one
        if port in _given:
            continue
        _given.add(port)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_for(condition: Callable[[], ResultT | None], seconds: float, what: str) -> ResultT:
    """Returns what the condition gives once it holds; raises TimeoutError, naming `what`.

    `seconds` are those of an idle machine; see PATIENCE.
    """
    end = time.monotonic() + PATIENCE * seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"no {what} within {PATIENCE * seconds:g} s")
        time.sleep(0.05)
    return found


def alive(process: psutil.Process) -> bool:
    """True while it runs; False for a zombie and for another that has its id by now."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def gone(pid: int) -> bool:
    """True when no such process runs."""
    try:
        return not alive(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return True


class Process:
    """A Python module that runs as its own process.

    Children that outlive it (a server's workers after `kill`) are remembered, and `stop` ends
    them too, each by its id.
    """

    def __init__(self, module: str, arguments: Sequence[str], env: dict[str, str], log: Path):
        self.command = [sys.executable, "-m", module, *arguments]
        self.env = {**os.environ, "PYTHONUNBUFFERED": "1", **env}
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._children: set[psutil.Process] = set()

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def output(self) -> str:
        """What it has printed so far, both streams."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command, env=self.env, cwd=ROOT, stdout=log, stderr=log
            )

    def wait(self, seconds: float = 30.0) -> int:
        """Returns the exit status once it has ended."""
        assert self._process is not None, "not started"
        return self._process.wait(PATIENCE * seconds)

    def signal(self, number: signal.Signals) -> None:
        self._remember_children()
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends it at once, as a crash would (kill -9); its children live on."""
        self.signal(signal.SIGKILL)
        self.wait()

    def tree(self) -> list[psutil.Process]:
        """Returns it and all its children, the last started first."""
        process = psutil.Process(self.pid)
        return [*reversed(process.children(recursive=True)), process]

    def kill_tree(self) -> None:
        """Ends it and its children at once, as a machine that fails would (kill -9)."""
        for process in self.tree():
            process.kill()
        self.wait()

    def stop(self, seconds: float = 30.0) -> int | None:
        """Ends it and every child; returns its exit status, None when it had to be killed."""
        status = None
        if self.running:
            self.signal(signal.SIGTERM)
            try:
                status = self.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()
        for child in filter(alive, self._children):
            with suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(list(filter(alive, self._children)), timeout=5)
        return status

    def _remember_children(self) -> None:
        if self.running:
            self._children.update(psutil.Process(self.pid).children(recursive=True))
