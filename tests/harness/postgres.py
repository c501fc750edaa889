"""A throw-away PostgreSQL server from Debian's programs, for one test session."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import uuid
from pathlib import Path

import psycopg

from tests.harness.process import free_port, wait_for

INSTALL = "apt-get install -y postgresql"


def find_programs() -> Path | None:
    """Returns the folder of initdb and postgres, the newest of Debian's, or None."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))
    on_path = [Path(p).resolve().parent for p in [shutil.which("initdb")] if p]
    found = [p for p in debian[::-1] + on_path if (p / "initdb").exists()]
    return found[0] if found else None


class Postgres:
    """PostgreSQL on a free port of the loopback; `database()` makes a new, empty database.

    With fsync off it is for tests that crash our processes, never for ones that crash it.
    """

    def __init__(self, programs: Path, *, fsync: bool = False) -> None:
        self.port = free_port()
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="lmtune-pg-"))
        self._user = self._unprivileged()
        if self._user is not None:  # PostgreSQL refuses to run as root
            os.chown(self._folder, self._user.pw_uid, self._user.pw_gid)
        trust = ["--no-sync", "-A", "trust", "-U", "lmtune", "-E", "UTF8"]
        self._run(programs / "initdb", *trust, "-D", self._folder / "data")
        self._options = [
            f"fsync={'on' if fsync else 'off'}",
            f"unix_socket_directories={self._folder}",
            "max_connections=1000",  # bench-service: 200 clients of Optuna have several each
        ]
        self.start()

    @property
    def pid(self) -> int:
        """The process whose children serve the connections."""
        return self._process.pid

    def start(self) -> None:
        """Starts the server on its data; returns when it answers."""
        flags = [word for option in self._options for word in ("-c", option)]
        where = ["-D", self._folder / "data", "-h", "127.0.0.1", "-p", f"{self.port}"]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", *where, *flags],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                **self._as_user(),
            )
        wait_for(self._answers, 30, f"answer of PostgreSQL, see {self._folder}/log")

    def end(self, number: signal.Signals) -> None:
        """Ends the server: SIGINT is its fast shutdown, SIGQUIT the immediate one, a crash.

        PostgreSQL 15 that is asked to shut down while it recovers from a crash may wait for ever.
        """
        self._process.send_signal(number)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(30)

    def database(self) -> str:
        """Returns the SQLAlchemy URL of a new, empty database."""
        name = f"t_{uuid.uuid4().hex[:12]}"
        with self.connect() as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return f"postgresql+psycopg://lmtune@127.0.0.1:{self.port}/{name}"

    def stop(self) -> None:
        """Ends the server, its connections with it, and removes its folder."""
        self.end(signal.SIGINT)
        shutil.rmtree(self._folder, ignore_errors=True)

    def connect(self) -> psycopg.Connection:
        """Returns a connection of the superuser."""
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="lmtune", dbname="postgres", autocommit=True
        )

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"PostgreSQL ended: {(self._folder / 'log').read_text()}")
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    @staticmethod
    def _unprivileged() -> pwd.struct_passwd | None:
        if os.getuid() != 0:
            return None
        users = {user.pw_name: user for user in pwd.getpwall()}
        return users.get("postgres") or users["nobody"]

    def _as_user(self) -> dict[str, object]:
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    def _run(self, *command: object) -> None:
        words = [str(word) for word in command]
        done = subprocess.run(
            words, cwd=self._folder, capture_output=True, text=True, check=False, **self._as_user()
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed: {done.stderr}")
