"""A server as a child process of `lmtune up`: started, waited for, ended with its workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final

from studies.cli.output import clean, warn
from studies.client import Client
from studies.errors import LmtuneError, StartupError
from studies.files import home

_START: Final = 120.0  # a slow disk may need this for the imports and the migrations [s]
_STOP: Final = 90.0  # workers checkpoint their trials; one lease of 60 s and some [s]
_HURRY: Final = 10.0  # once it was told twice [s]
_LOOK: Final = 0.1  # between looks at the child [s]


class LocalServer:
    """A context in which a server runs on LMTUNE_HOME.

    Entering raises StartupError, with the cause as one line, unless the server gets ready. Leaving
    ends it with SIGTERM, so that its workers checkpoint and release what they train.
    """

    def __init__(self, host: str | None, port: int | None, workers: str | None) -> None:
        """None leaves a setting as the environment has it (docs/operations.md)."""
        asked = {"LMTUNE_HOST": host, "LMTUNE_PORT": port, "LMTUNE_WORKERS": workers}
        said = {name: str(value) for name, value in asked.items() if value is not None}
        self._env = {**os.environ, "PYTHONUNBUFFERED": "1", **said}
        self._home = home()
        self.log = self._home / "logs" / "server.log"
        self._log_start = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address, as the server wrote it into its home."""
        return _read(self._home / "url")

    @property
    def database(self) -> str:
        """Where the studies are, as plain Optuna opens them; a password is left out."""
        url = self._env.get("LMTUNE_DATABASE_URL") or ""
        if not url:
            return f"sqlite:///{(self._home / 'lmtune.db').absolute()}"
        head, at, tail = url.partition("?")[0].rpartition("@")
        scheme, _, user = head.partition("://")
        return f"{scheme}://{user.partition(':')[0]}@{tail}" if at else tail

    @contextmanager
    def client(self) -> Iterator[Client]:
        """Gives a client with the home's own token, and closes it."""
        client = Client(self.url, _read(self._home / "token"))
        try:
            yield client
        finally:
            client.http.close()

    def check(self) -> None:
        """Raises StartupError, with the server's last words, if it has ended."""
        if self._process is not None and self._process.poll() is not None:
            raise StartupError(f"the server ended: {self._last_words()} (more in {self.log})")

    def __enter__(self) -> LocalServer:
        self._refuse_second()
        before = _written(self._home / "url")
        self._start()
        try:
            self._wait_until_ready(before)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def serve(self) -> None:
        """Returns when the server has ended by itself; Ctrl-C raises KeyboardInterrupt."""
        while True:
            self.check()
            time.sleep(5 * _LOOK)

    def stop(self) -> None:
        """Ends the server and its workers; a second Ctrl-C does not wait for checkpoints."""
        process = self._process
        for patience in (_STOP, _HURRY):
            if process is None or process.poll() is not None:
                return
            process.terminate()  # the second one says: at once
            try:
                process.wait(patience)
            except (KeyboardInterrupt, subprocess.TimeoutExpired):
                warn("ending at once; trials go on from their last checkpoint next time")
        if process is not None and process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # a group of its own: see _start
            process.wait()

    def _refuse_second(self) -> None:
        """Raises StartupError, with what to do instead, where a server runs on this home."""
        try:
            with self.client() as client:
                url = client.http.url
                client.workers()
        except (LmtuneError, OSError, ValueError):
            pass  # a file of a server that is gone, or somebody else's address
        else:
            raise StartupError(
                f"a server already runs on {self._home} at {url}; use `lmtune create FILE` and"
                f" `lmtune watch NAME`, or end it first: kill {_read(self._home / 'lock')}"
            )

    def _start(self) -> None:
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("ab") as log:
                self._log_start = log.tell()
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "service"],
                    env=self._env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is ours: the server is asked once, by us
                )
        except OSError as error:
            raise StartupError(
                f"LMTUNE_HOME {self._home} cannot be written: {error.strerror}; name another folder"
            ) from None

    def _wait_until_ready(self, before: float) -> None:
        end = time.monotonic() + _START
        while time.monotonic() < end:
            if self._process is not None and self._process.poll() is not None:
                raise StartupError(self._last_words())
            if _written(self._home / "url") != before:
                with self.client() as client:
                    if client.http.ready:
                        return
            time.sleep(_LOOK)
        raise StartupError(f"the server was not ready in {_START:g} s; see {self.log}")

    def _last_words(self) -> str:
        """Returns the last line the server wrote, else its exit status."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read()[-8_192:].decode("utf-8", "replace").split("\n")
        said = [clean(line).strip() for line in lines if line.strip()]
        status = self._process.returncode if self._process is not None else None
        last = said[-1] if said else f"it ended with status {status} and said nothing"
        return last.removeprefix("lmtune-server: ")


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip()


def _written(path: Path) -> float:
    """Returns when the file was written [ns since 1970], 0 if it is not there."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
