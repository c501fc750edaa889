"""What the launchers' tests share: a worker that only waits, and launchers that start it."""

from __future__ import annotations

import json
import os
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service.launcher import local
from service.launcher import ray as on_ray
from service.launcher import slurm as on_slurm
from service.launcher.keeper import Keeper, Slot
from tests.harness.process import gone, wait_for

WORKER = """
import json, os, signal, subprocess, sys, time
from pathlib import Path
deaf = os.environ.get("STUB") == "deaf"
signal.signal(signal.SIGTERM, signal.SIG_IGN if deaf else lambda *_: sys.exit(0))
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
name = sys.argv[sys.argv.index("--name") + 1]
said = {"name": name, "pid": os.getpid(), "child": child.pid, "argv": sys.argv}
path = Path(os.environ["STUB_FOLDER"], name)
print("I am", name, flush=True)
path.with_suffix(".tmp").write_text(json.dumps(said | {"env": dict(os.environ)}))
path.with_suffix(".tmp").rename(path.with_suffix(".json"))
time.sleep(300)
"""
URL, TOKEN = "http://127.0.0.1:1", "lmt_secret"


class Bench(ABC):
    """Launchers of one kind whose workers are the one above, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        self.stub = folder / "stub.py"
        self.stub.write_text(WORKER)
        self.made: list[Keeper[Any]] = []

    @abstractmethod
    def _make(self, slots: Sequence[Slot[Any]], url: str) -> Keeper[Any]: ...

    def launcher(self, count: int = 1, url: str = URL, **environment: str) -> Keeper[Any]:
        """Returns a launcher with so many slots, on the home folder of the others."""
        given = {"STUB_FOLDER": str(self.folder), **environment}
        slots: list[Slot[Any]] = [Slot(f"slot{n}", dict(given)) for n in range(count)]
        self.made.append(self._make(slots, url))
        return self.made[-1]

    def said(self) -> dict[str, dict[str, Any]]:
        """Returns what each worker that was ever started said, by name."""
        files = self.folder.glob("slot*.json")
        return {path.stem: json.loads(path.read_text()) for path in files}

    def living(self) -> list[dict[str, Any]]:
        """Returns what the workers that run have said."""
        return [each for each in self.said().values() if not gone(each["pid"])]

    def wait_living(self, count: int, launcher: Keeper[Any] | None = None, wanted: int = 0) -> None:
        """Waits until so many run; meanwhile the launcher, if given, keeps `wanted`."""

        def so_many() -> bool:
            assert not launcher or launcher.keep(wanted) == []
            return len(self.living()) == count

        wait_for(so_many, 60, f"{count} workers")

    def kill(self, said: dict[str, Any]) -> None:
        """Ends a worker as a crash would."""
        os.kill(said["pid"], signal.SIGKILL)
        wait_for(lambda: gone(said["pid"]), 20, "end of the worker")

    def end(self) -> None:
        """Ends all that is left of the launchers and their workers."""
        for launcher in self.made:
            launcher.stop(0)


class LocalBench(Bench):
    """Processes of this machine."""

    def _make(self, slots: Sequence[Slot[Any]], url: str) -> Keeper[Any]:
        made = local.LocalLauncher(slots, url, TOKEN, self.home, (sys.executable, str(self.stub)))
        made._idle = 0
        return made


class RayBench(Bench):
    """Actors on a cluster of two nodes, one worker on each."""

    def __init__(self, folder: Path, address: str, **options: float) -> None:
        super().__init__(folder)
        self.options = on_ray.RayOptions(address=address, **options)

    def _make(self, slots: Sequence[Slot[Any]], url: str) -> Keeper[Any]:
        return on_ray.RayLauncher(slots, url, TOKEN, self.home, self.options, [str(self.stub)])


class SlurmBench(Bench):
    """Jobs on a cluster of three nodes; the home folder is the one that they share."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.options = on_slurm.SlurmOptions(cpus=1, poll=0.3)
        self.home.mkdir()
        (self.home / "token").write_text(TOKEN)

    def _make(self, slots: Sequence[Slot[Any]], url: str) -> Keeper[Any]:
        return on_slurm.SlurmLauncher(slots, url, self.home, self.options, [str(self.stub)])
