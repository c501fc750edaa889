"""The devices of one worker that train together, and the processes beside the first.

Each process is told its place as torchrun would tell it, but is the supervisor's own child with a
pipe: so each hears of a trial at once, and one that dies ends all.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe as make_pipe
from typing import Any, Final

from studies.cores import thread_limit
from studies.errors import StartupError
from studies.trial import Outcome
from trainer.pipe import Pipe

_FAILED: Final = (Outcome.OOM, Outcome.DIVERGED)
_LAST: Final = ("result", "error", "unusable")  # what a process says of a trial
# Below those that Linux gives to whoever asks for any (ip_local_port_range): the first process
# listens only when it has imported torch, and nobody gets its port by chance meanwhile.
_PORTS: Final = range(15_000, 20_000)
_GRACE: Final = 5.0  # for the first process to say itself how a trial failed [s]; assumption


def spawn(environment: dict[str, str]) -> tuple[subprocess.Popen[bytes], Pipe]:
    """Returns a training process that was started, and our end of its pipe."""
    ours, theirs = make_pipe()
    command = [sys.executable, "-m", "trainer.child", str(theirs.fileno())]
    process = subprocess.Popen(  # noqa: S603 - our own program
        command, pass_fds=[theirs.fileno()], env={**os.environ, **environment}
    )
    theirs.close()
    return process, Pipe(ours)


@dataclass(frozen=True)
class Devices:
    """What a worker has: the number of processes that train one trial, and their GPUs if any."""

    count: int = 1
    visible: str | None = None  # as CUDA_VISIBLE_DEVICES says it; None: as it is

    def places(self) -> list[dict[str, str]]:
        """Returns the environment of each process, for one start of them all."""
        shared = {} if self.visible is None else {"CUDA_VISIBLE_DEVICES": self.visible}
        if self.visible in (None, ""):
            shared |= thread_limit(self.count)
        if self.count == 1:
            return [shared]
        shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
        shared |= {"WORLD_SIZE": str(self.count)}
        return [{**shared, "RANK": str(n), "LOCAL_RANK": str(n)} for n in range(self.count)]


def _free_port() -> int:
    """Returns a port of the loopback that was free a moment ago; raises StartupError."""
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise StartupError(f"no port of {_PORTS[0]} to {_PORTS[-1]} is free for several devices")


def parse_devices(said: str | None) -> Devices:
    """Returns the devices that `--devices cuda:0,cuda:1`, `cpu,cpu` or `all` names.

    `all` are the GPUs of CUDA_VISIBLE_DEVICES; without any the CPU.

    Raises:
        StartupError: they are not all of one kind, or one is named twice.
    """
    if said is None:
        return Devices()
    outer = os.environ.get("CUDA_VISIBLE_DEVICES")
    given = [device for device in (outer or "").split(",") if device]
    if said == "all":
        if outer is None:
            raise StartupError("--devices all: CUDA_VISIBLE_DEVICES names none; name them here")
        return Devices(max(len(given), 1), outer)
    names = said.split(",")
    if set(names) == {"cpu"}:
        return Devices(len(names), "")
    numbers = [name.removeprefix("cuda:") for name in names]
    known = all(re.fullmatch(r"cuda:\d+", name) for name in names)
    if not known or len(set(numbers)) < len(numbers):
        raise StartupError(f"--devices {said}: name GPUs as cuda:0,cuda:1 once each, or cpu,cpu")
    if outer is not None:  # cuda:0 is the first that this worker was given
        if max(map(int, numbers)) >= len(given):
            raise StartupError(f"--devices {said}: CUDA_VISIBLE_DEVICES has {len(given)}")
        numbers = [given[int(number)] for number in numbers]
    return Devices(len(numbers), ",".join(numbers))


ONE: Final = Devices()


def is_failure(message: Mapping[str, Any]) -> bool:
    """True where a process says that its trial failed: the others may wait for it for ever."""
    return message.get("kind") == "error" or message.get("outcome") in _FAILED


class Helpers:
    """The processes of all devices but the first; `failed` is told once how and why all end."""

    def __init__(
        self, places: Sequence[dict[str, str]], failed: Callable[[Outcome, str], None]
    ) -> None:
        self._failed, self._ended, self._orders = failed, False, 0
        self._members = [spawn(place) for place in places]
        for number, (process, pipe) in enumerate(self._members, start=1):
            said = (number, process, pipe)
            threading.Thread(target=self._watch, args=said, name="helper", daemon=True).start()

    def send(self, kind: str, **content: Any) -> None:
        """Sends a message to each."""
        self._orders += kind == "train"
        for _, pipe in self._members:
            with contextlib.suppress(OSError):
                pipe.send(kind, **content)

    def kill(self) -> None:
        """Ends them at once."""
        self._ended = True
        for process, _ in self._members:
            process.kill()
            process.wait()

    def _watch(self, number: int, process: subprocess.Popen[bytes], pipe: Pipe) -> None:
        outcome, reason, done = Outcome.ERROR, "", 0
        try:
            while not reason:
                message = pipe.receive() or {}
                done += message.get("kind") in _LAST
                if is_failure(message):
                    outcome = Outcome(message.get("outcome", outcome))
                    reason = f"on device {number}: {message['reason']}"
            time.sleep(_GRACE)
            if done < self._orders:  # another trial's: the first device ended it without this one
                outcome = Outcome.ERROR
        except (EOFError, OSError):
            reason = f"the training process on device {number} ended with {process.wait()}"
        if not self._ended:
            self._failed(outcome, reason)
