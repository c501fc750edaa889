"""Workers on this machine: one per GPU, or on the CPU; each in a process group of its own.

A worker outlives a server that crashed, and goes on with its trial; the next server adopts it.
What is known of the workers stands in `workers.json` in the home folder.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Literal

import psutil

from service.launcher.base import Lost

logger = logging.getLogger(__name__)
_BACKOFF: Final = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)  # before the next start [s]
_STEADY: Final = 60.0  # a worker that lived this long starts over in the backoff [s]
_POLL: Final = 0.1  # between looks while workers go [s]
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


@dataclass
class Slot:
    """A place for one worker: a device, and the life that is in it now."""

    key: str
    environment: dict[str, str]
    life: Life | None = None
    child: subprocess.Popen[bytes] | None = None  # None for an adopted worker
    deaths: int = 0
    next_start: float = field(default=0.0)  # [monotonic s]


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


def make_slots(workers: int | Literal["auto"]) -> list[Slot]:
    """Returns a slot per GPU, or on a machine without one the asked-for number on the CPU.

    None, with a warning, where PyTorch is not installed.
    """
    if workers == 0:
        return []
    if importlib.util.find_spec("torch") is None:
        logger.warning("no local worker: PyTorch is missing; pip install 'lmtune[worker]'")
        return []
    gpus = find_gpus()
    if gpus:
        count = len(gpus) if workers == "auto" else min(workers, len(gpus))
        return [Slot(f"gpu{gpu}", {"CUDA_VISIBLE_DEVICES": gpu}) for gpu in gpus[:count]]
    count = 1 if workers == "auto" else workers
    threads = str(max((os.cpu_count() or 1) // max(count, 1), 1))
    quiet = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": threads}
    return [Slot(f"cpu{number}", dict(quiet)) for number in range(count)]


class LocalLauncher:
    """Supervises one worker per slot."""

    def __init__(self, slots: Sequence[Slot], url: str, token: str, home: Path) -> None:
        self._slots = slots
        self._url, self._token = url, token
        self._home = home.absolute()
        self._stopping = False
        (self._home / "logs").mkdir(parents=True, exist_ok=True)
        self._adopted = self._read()

    def keep(self) -> list[Lost]:
        """Starts what is missing, restarts the dead; returns the workers that died."""
        lost = self._adopted + [lost for slot in self._slots if (lost := self._reap(slot))]
        self._adopted = []
        for slot in self._slots:
            if slot.life is None and time.monotonic() >= slot.next_start and not self._stopping:
                self._start(slot)
        return lost

    def stop(self, grace: float) -> list[Lost]:
        """Sends SIGTERM, waits up to `grace` [s], then kills; returns the dead and the killed."""
        self._stopping = True
        lost = self.keep()
        living = [slot for slot in self._slots if slot.life]
        for slot in living:
            with suppress(ProcessLookupError):
                os.kill(slot.life.pid, signal.SIGTERM)  # type: ignore[union-attr]
        end = time.monotonic() + grace
        while time.monotonic() < end and any(s.life and self._alive(s) for s in living):
            time.sleep(_POLL)
        for slot in living:
            if slot.life and self._alive(slot):
                lost.append(Lost(slot.life.name, "it did not end in time"))
            elif slot.life and slot.child and slot.child.returncode:
                lost.append(Lost(slot.life.name, f"it ended with {slot.child.returncode}"))
            if slot.life:
                slot.life.kill_group()
            if slot.child:
                slot.child.wait()
            slot.life = slot.child = None
        self._write()
        return lost

    def _start(self, slot: Slot) -> None:
        name = f"{slot.key}-{secrets.token_hex(4)}"
        log = self._home / "logs" / f"worker-{slot.key}.log"
        environment = {
            **os.environ,
            **slot.environment,
            "LMTUNE_TOKEN": self._token,
            "LMTUNE_HOME": str(self._home),
        }
        command = [sys.executable, "-m", "trainer", "--server", self._url, "--name", name]
        with log.open("ab") as file:
            slot.child = subprocess.Popen(  # noqa: S603 - our own program
                command, env=environment, stdout=file, stderr=file, start_new_session=True
            )
        created = psutil.Process(slot.child.pid).create_time()
        slot.life = Life(name, slot.child.pid, created)
        self._write()
        logger.info("worker %s started (pid %s, log %s)", name, slot.child.pid, log)

    def _alive(self, slot: Slot) -> bool:
        if slot.child is not None:
            return slot.child.poll() is None
        return slot.life is not None and slot.life.process() is not None

    def _reap(self, slot: Slot) -> Lost | None:
        """Returns the slot's worker if it died, its group ended and its next start planned."""
        if slot.life is None or self._alive(slot):
            return None
        life, code = slot.life, slot.child.returncode if slot.child else None
        life.kill_group()
        lived = time.time() - life.created
        slot.deaths = 1 if lived > _STEADY else slot.deaths + 1
        slot.next_start = time.monotonic() + _BACKOFF[min(slot.deaths, len(_BACKOFF) - 1)]
        slot.life = slot.child = None
        self._write()
        reason = "it ended" if code is None else f"it ended with {code}"
        logger.warning("worker %s: %s after %.0f s; see its log", life.name, reason, lived)
        return Lost(life.name, reason)

    def _read(self) -> list[Lost]:
        """Puts living workers of a server before us into their slots; returns the dead.

        A worker that speaks to another address, or has no slot any more, is ended.
        """
        try:
            known = json.loads((self._home / "workers.json").read_text(encoding="utf-8"))
            lives = {key: Life(**said) for key, said in known["lives"].items()}
        except (OSError, ValueError, TypeError, KeyError):  # there is none, or it is not ours
            return []
        lost = []
        slots = {slot.key: slot for slot in self._slots}
        for key, life in lives.items():
            if life.process() is None:
                life.kill_group()
                lost.append(Lost(life.name, "it ended while no server watched"))
            elif key in slots and known["url"] == self._url:
                slots[key].life = life
                logger.info("worker %s goes on (pid %s)", life.name, life.pid)
            else:
                life.kill_group()
                lost.append(Lost(life.name, "it was started for another address or device"))
        return lost

    def _write(self) -> None:
        lives = {slot.key: asdict(slot.life) for slot in self._slots if slot.life}
        path = self._home / "workers.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"url": self._url, "lives": lives}), encoding="utf-8")
        temporary.replace(path)
