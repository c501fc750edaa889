"""The process that speaks to Ray: `python -m service.launcher.ray_agent`, JSON lines in and out.

A driver of Ray ends with its cluster's head, or with the raylet of its machine; the server must
not, so it never imports Ray. Workers are detached actors that outlive this process, found again by
their names. The token comes in by the pipe and goes to the actors as an argument: Ray shows
environments and command lines to everyone who may look at the cluster.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import ray
from ray.exceptions import ActorUnavailableError, RayError

NAMESPACE: Final = "lmtune"
_WAIT: Final = 2.0  # for the answers of all actors [s]
_CHUNK: Final = 65_536  # of a log in one answer [bytes]
_PR_SET_PDEATHSIG: Final = 1  # <linux/prctl.h>


class WorkerActor:
    """One worker as a process of an actor: it has the actor's GPUs, and ends with it."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the actor
        library = ctypes.CDLL(None) if sys.platform == "linux" else None

        def follow() -> None:  # where the actor or its node is killed, the worker is asked to go
            if library is not None:
                library.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

        home = os.path.join(os.path.expanduser("~"), ".lmtune")
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, *command],
            env={"LMTUNE_HOME": home, **os.environ, **environment},
            stdout=self._log.fileno(),
            stderr=self._log.fileno(),
            start_new_session=True,
            preexec_fn=follow,
        )

    def look(self, start: int) -> tuple[int | None, int, str]:
        """Returns the exit code if there is one, and the log from a byte on with where it ends."""
        code = self._process.poll()
        end = os.fstat(self._log.fileno()).st_size
        start = end if start < 0 else max(start, end - _CHUNK)
        return code, end, os.pread(self._log.fileno(), end - start, start).decode(errors="replace")

    def signal(self, number: int) -> None:
        """Sends a signal to the worker, or SIGKILL to all that it started."""
        with suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(self._process.pid, number)
            else:
                self._process.send_signal(number)


class Cluster:
    """The actors of one cluster."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        # Not None for a new one: that would join a cluster that is on this machine.
        ray.init(
            options["address"], namespace=NAMESPACE, log_to_driver=False, include_dashboard=None
        )
        self._resources = {name: options[name] for name in ("num_cpus", "num_gpus")}
        self._handles: dict[str, Any] = {}
        self._looks: dict[str, Any] = {}  # calls that are not answered yet, as of a queued actor

    def launch(self, names: list[str], command: list[str], environment: dict[str, str]) -> None:
        """Makes an actor under each name; Ray places it when there is room."""
        actor = ray.remote(WorkerActor)
        for name in names:
            wish = {"name": name, "lifetime": "detached", "max_restarts": 0, **self._resources}
            said = [*command, "--name", name]
            self._handles[name] = actor.options(**wish).remote(said, environment)

    def look(self, starts: dict[str, int]) -> dict[str, Any]:
        """Returns what each worker says: code, end and log; or why it is gone. Else nothing."""
        found: dict[str, Any] = {}
        for name, start in starts.items():
            if (handle := self._handle(name)) is None:
                found[name] = {"gone": "its actor is gone"}
            elif name not in self._looks:
                self._looks[name] = handle.look.remote(start)
        refs = {self._looks[name]: name for name in starts if name in self._looks}
        ready, _ = ray.wait(list(refs), num_returns=len(refs), timeout=_WAIT) if refs else ([], [])
        for ref in ready:
            del self._looks[refs[ref]]
            with suppress(ActorUnavailableError):  # it may come back
                found[refs[ref]] = self._read(ref)
        return found

    def ask(self, name: str) -> None:
        """Asks a worker to checkpoint and go."""
        if (handle := self._handle(name)) is not None:
            handle.signal.remote(signal.SIGTERM)

    def end(self, name: str) -> None:
        """Ends a worker with its actor; one that is gone is left alone."""
        if (handle := self._handle(name)) is not None:
            with suppress(RayError):
                ray.wait([handle.signal.remote(signal.SIGKILL)], timeout=_WAIT)
                ray.kill(handle)
        self._handles.pop(name, None)
        self._looks.pop(name, None)

    @staticmethod
    def _read(ref: Any) -> dict[str, Any]:
        try:
            code, end, log = ray.get(ref)
        except RayError as error:
            return {"gone": str(error).splitlines()[0]}
        return {"code": code, "end": end, "log": log}

    def _handle(self, name: str) -> Any:
        if name not in self._handles:
            try:
                self._handles[name] = ray.get_actor(name)
            except ValueError:
                return None
        return self._handles[name]


def main() -> None:
    """Answers one line with one line until its input ends; the first line has the options."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Ray prints is no answer
    cluster = Cluster(json.loads(sys.stdin.readline()))
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        call = json.loads(line)
        said = getattr(cluster, call.pop("do"))(**call)
        print(json.dumps(said), file=answers, flush=True)


if __name__ == "__main__":
    main()
