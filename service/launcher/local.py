"""Workers on this machine: one per GPU, or on the CPU; each in a process group of its own.

A worker outlives a server that crashed, and goes on with its trial; the next server adopts it.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Literal

import psutil
from pydantic import BaseModel, ConfigDict, Field

from service.launcher.keeper import End, Keeper, Slot, gpus_of, inherited
from studies.cores import thread_limit
from studies.errors import StartupError

logger = logging.getLogger(__name__)
COMMAND: Final = (sys.executable, "-m", "trainer")  # `lmtune-worker` of this Python
_SAME: Final = 5.0  # creation times this near are one process: they move with the wall clock [s]


@dataclass(frozen=True)
class Life:
    """One life of a worker process; the creation time tells it from a reused pid."""

    name: str
    pid: int
    created: float

    def process(self) -> psutil.Process | None:
        """Returns the live process, or None."""
        try:
            process = psutil.Process(self.pid)
            alive = abs(process.create_time() - self.created) < _SAME
            zombie = process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return process if alive and not zombie else None

    def kill_group(self) -> None:
        """Ends the whole process group: the supervisor's child with it, also after its own end.

        The number is given again only once the group is empty, and then to a stranger.
        """
        with suppress(psutil.NoSuchProcess):
            if abs(psutil.Process(self.pid).create_time() - self.created) >= _SAME:
                return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


def find_gpus() -> list[str]:
    """Returns the GPUs that workers may use, as CUDA_VISIBLE_DEVICES names them."""
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    if said is not None:
        return [device for device in said.split(",") if device and device != "-1"]
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],  # noqa: S607 - on PATH
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.split()


class LocalOptions(BaseModel):
    """`LMTUNE_LAUNCHER_OPTIONS` of this launcher."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    devices: int = Field(1, ge=1, description="of each worker, for each trial")


def make_slots(workers: int | Literal["auto"], devices: int = 1) -> list[Slot[Life]]:
    """Returns a slot per GPU, or on a machine without one the asked-for number on the CPU.

    None, with a warning, where PyTorch is not installed.

    Args:
        workers: at most so many.
        devices: that each of them trains a trial on; GPUs that do not make up a worker are left.
    """
    if workers == 0:
        return []
    if importlib.util.find_spec("torch") is None:
        logger.warning("no local worker: PyTorch is missing; pip install 'lmtune[worker]'")
        return []
    gpus = find_gpus()
    several = f"x{devices}" if devices > 1 else ""
    if gpus:
        if left := len(gpus) % devices:
            logger.warning("%s of %s GPUs make up no worker of %s", left, len(gpus), devices)
        if len(gpus) < devices:
            raise StartupError(
                f"LMTUNE_LAUNCHER_OPTIONS: devices: {devices} for each worker, and there are"
                f" {len(gpus)} GPUs"
            )
        whole = range(0, len(gpus) - devices + 1, devices)
        teams = [gpus[first : first + devices] for first in whole]
        teams = teams if workers == "auto" else teams[:workers]
        return [
            Slot(
                f"gpu{team[0]}{several}",
                gpus_of(devices) | {"CUDA_VISIBLE_DEVICES": ",".join(team)},
            )
            for team in teams
        ]
    count = 1 if workers == "auto" else workers
    quiet = {"CUDA_VISIBLE_DEVICES": "", **thread_limit(count * devices)}
    quiet["LMTUNE_DEVICES"] = ",".join(["cpu"] * devices)
    return [Slot(f"cpu{number}{several}", dict(quiet)) for number in range(count)]


class LocalLauncher(Keeper[Life]):
    """Supervises one process per slot."""

    life_type: ClassVar[type[Life]] = Life
    elsewhere: ClassVar[bool] = False

    def __init__(
        self,
        slots: Sequence[Slot[Life]],
        url: str,
        token: str,
        home: Path,
        command: Sequence[str] = COMMAND,
    ) -> None:
        super().__init__(slots, home, url, idle=len(slots))
        self._token, self._command = token, command
        self._children: dict[int, subprocess.Popen[bytes]] = {}  # by pid; none of an adopted worker

    def _launch(self, slots: Mapping[str, Slot[Life]]) -> dict[str, Life]:
        return {name: self._spawn(name, slot) for name, slot in slots.items()}

    def _spawn(self, name: str, slot: Slot[Life]) -> Life:
        environment = {
            **inherited(),
            **slot.environment,
            "LMTUNE_TOKEN": self._token,
            "LMTUNE_HOME": str(self._home),
        }
        command = [*self._command, "--server", self._url, "--name", name]
        with self._log_path(slot.key).open("ab") as file:
            child = subprocess.Popen(  # noqa: S603 - our own program
                command, env=environment, stdout=file, stderr=file, start_new_session=True
            )
        self._children[child.pid] = child
        return Life(name, child.pid, psutil.Process(child.pid).create_time())

    def _look(self, life: Life) -> End | None:
        child = self._children.get(life.pid)
        if child is None:
            return None if life.process() else End(clean=True)  # nobody knows how
        code = child.poll()
        return None if code is None else End(f"it ended with {code}", code == 0)

    def _ask(self, life: Life) -> None:
        with suppress(ProcessLookupError):
            os.kill(life.pid, signal.SIGTERM)

    def _end(self, life: Life) -> None:
        life.kill_group()
        if child := self._children.pop(life.pid, None):
            child.wait()
