"""The server and the processes of workers: started, killed, frozen, and started again."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.history import History
from tests.chaos.net import Http, Unreachable
from tests.chaos.proxy import Link
from tests.chaos.server import EXIT
from tests.harness.process import PATIENCE, ROOT, free_port

READY_SECONDS = 60.0 * PATIENCE  # a server that does not serve by then is stuck
TOKEN = "lmt_storm"  # noqa: S105 - of a server on the loopback
BROKEN = 74  # exit status of a server whose database's disk fails
LEASE = 2.0  # LMTUNE_LEASE_SECONDS [s]
GRANTED = LEASE + 1.0  # what a write gives: a tick more


def environment() -> dict[str, str]:
    """Returns the environment of a child: compiled modules are kept, so that a start is quick."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LMTUNE_", "PYTHONDONT"))}
    compiled = Path(tempfile.gettempdir()) / f"lmtune-storm-{os.getuid()}"
    return {**kept, "PYTHONPYCACHEPREFIX": str(compiled), "PYTHONUNBUFFERED": "1"}


class Server:
    """One server; `lock` is held by whoever makes it unwell."""

    def __init__(self, folder: Path, number: int, url: str, history: History | None) -> None:
        """`history` is told when it is away; None: others tick meanwhile."""
        self.home = folder / f"home-{number}"
        self.home.mkdir()
        (self.home / "token").write_text(TOKEN + "\n")
        self.port, self.lock = free_port(), asyncio.Lock()
        self.log = folder / f"server-{number}.log"
        self.surprises: list[str] = []  # ends that nobody had asked for
        self._history = history
        self._env = environment() | {
            "LMTUNE_HOME": str(self.home),
            "LMTUNE_BLOBS": str(folder / "blobs"),
            "LMTUNE_DATABASE_URL": url,
            "LMTUNE_PORT": str(self.port),
            "LMTUNE_WORKERS": "0",
            "LMTUNE_LEASE_SECONDS": f"{LEASE:g}",
            "LMTUNE_LOG_LEVEL": "warning",
            "LMTUNE_CHAOS": str(self.home),
        }
        self._away_since: float | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """True while the process is there, frozen or not."""
        return self._process is not None and self._process.poll() is None

    async def start(self) -> None:
        """Starts it, again where it finds no database, as a service manager would."""
        end = time.monotonic() + READY_SECONDS
        self._spawn()
        while not await self._ready():
            if time.monotonic() > end:
                raise RuntimeError(f"the server does not serve:\n{self.output[-3_000:]}")
            if not self.running:
                self._spawn()
            await asyncio.sleep(0.05)
        self._is_back()

    def _is_back(self) -> None:
        if self._history is not None and self._away_since is not None:
            self._history.away(self._away_since, time.monotonic())
        self._away_since = None

    def _spawn(self) -> None:
        command = [sys.executable, "-m", "tests.chaos.server"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=self._env, cwd=ROOT, stdout=log, stderr=log
            )

    async def _ready(self) -> bool:
        http = Http(self.port, TOKEN)
        try:
            return (await http.request("GET", "/studies", timeout=2.0))[0] == 200
        except Unreachable:
            return False
        finally:
            http.close()

    @property
    def output(self) -> str:
        """What it has logged."""
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        """Kill -9."""
        assert self._process is not None
        self._process.kill()
        self.reap()

    def reap(self) -> None:
        """Records that it is gone."""
        assert self._process is not None
        status = self._process.wait()
        self._away_since = self._away_since or time.monotonic()
        if status not in (-signal.SIGKILL, EXIT, BROKEN):
            self.surprises.append(f"the server ended with {status}: {self.output[-500:]}")

    async def _ended(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while self.running and time.monotonic() < end:
            await asyncio.sleep(0.02)

    async def crash_at(self, point: str, seconds: float) -> bool:
        """Arms a crash point; returns True when the server has died there."""
        say(self.home / "crash", point)
        await self._ended(seconds)
        (self.home / "crash").unlink()
        if self.running:
            await asyncio.sleep(0.1)  # until it has looked
        if self.running:
            return False
        self.reap()
        return True

    async def ended_broken(self, seconds: float) -> bool:
        """Returns True once it has ended because its disk fails; else its disk is well again."""
        await self._ended(seconds)
        if self.running:
            self.limit_files(resource.RLIM_INFINITY)
            return False
        self.reap()
        return True

    def freeze(self) -> None:
        """SIGSTOP."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        self._away_since = time.monotonic()

    def thaw(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._is_back()
        self._process.send_signal(signal.SIGCONT)

    def shift_clock(self, seconds: float) -> None:
        """Makes its wall clock wrong by so much [s]."""
        say(self.home / "offset", f"{seconds}")

    def limit_files(self, size: int) -> None:
        """Lets it write no file beyond so many bytes [bytes]; RLIM_INFINITY: any."""
        assert self._process is not None
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def stop(self) -> int:
        """SIGTERM; returns its exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(30 * PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


class Workers:
    """A process of simulated workers behind a link of its own; `lock` as the server's."""

    def __init__(self, name: str, folder: Path, link: Link, options: dict[str, object]) -> None:
        self.name, self.link, self.lock = name, link, asyncio.Lock()
        self.lives = 0
        self.log = folder / f"{name}.log"
        self._env, self._options = environment(), options | {"history": folder / "history"}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """True while the process is there, stopped or not."""
        return self._process is not None and self._process.poll() is None

    def start(self, **options: object) -> None:
        """Begins a new life."""
        self.lives += 1
        said = self._options | {"name": f"{self.name}-{self.lives}", "port": self.link.port}
        words = [f"--{k.replace('_', '-')}={v}" for k, v in (said | options).items()]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.workers", *words],
                env=self._env,
                cwd=ROOT,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the whole process group."""
        if self.running and self._process is not None:
            os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """Kill -9."""
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    async def ended(self, seconds: float) -> bool:
        """Returns True once it has ended by itself."""
        end = time.monotonic() + seconds
        while self.running and time.monotonic() < end:
            await asyncio.sleep(0.02)
        return not self.running


def say(file: Path, text: str) -> None:
    """Writes a file that appears whole."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)
