"""What the storm's server keeps its rows in, and what can happen to it.

PostgreSQL runs with fsync on: what it has acknowledged survives its own crash.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import time
from pathlib import Path

import psycopg

from tests.harness.postgres import INSTALL, Postgres, find_programs

RECOVERY_SECONDS = 30.0  # PostgreSQL may take after a crash, on a busy machine


class SqliteFile:
    """A file in the storm's folder."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "lmtune.db"
        self.url = f"sqlite:///{self.file}"

    def hold(self, seconds: float) -> None:
        """Reads as another program would, and keeps its shared lock for so long [s]."""
        connection = sqlite3.connect(f"file:{self.file}?mode=ro", uri=True, timeout=5.0)
        try:
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM lmtune_trials").fetchone()
            time.sleep(seconds)
        except sqlite3.OperationalError:  # it is locked, or not made yet
            return
        finally:
            connection.close()

    def copy(self, target: Path) -> None:
        """Copies the file and its journal as a crash would leave them; the server is frozen."""
        target.mkdir(parents=True)
        for suffix in ("", "-journal", "-wal"):
            source = self.file.with_name(self.file.name + suffix)
            if source.exists():
                shutil.copyfile(source, target / source.name)

    def stop(self) -> None:
        """Nothing runs."""


def look_into(copy: Path) -> tuple[str, set[tuple[int, int, int]]]:
    """Returns what a copy's integrity check says, and the keys of its reports."""
    connection = sqlite3.connect(copy / "lmtune.db")
    try:
        (said,) = connection.execute("PRAGMA integrity_check").fetchone()
        keys = connection.execute("SELECT trial_id, attempt, step FROM lmtune_reports")
        return said, set(keys)
    finally:
        connection.close()


class PostgresServer:
    """A PostgreSQL server that is crashed and started again."""

    def __init__(self) -> None:
        programs = find_programs()
        if programs is None:
            raise SystemExit(f"storm: PostgreSQL is missing; {INSTALL}")
        self.server = Postgres(programs, fsync=True)
        self.url = self.server.database()

    def restart(self, number: signal.Signals) -> None:
        """Ends the server, cleanly or not, and starts it on its data."""
        self.server.end(number)
        self.server.start()

    def terminate_backends(self) -> None:
        """Ends every connection to our database, as an administrator would."""
        self._ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s")

    def kill_backend(self) -> None:
        """Kills one of our connections' processes: PostgreSQL then recovers as after a crash."""
        ours = "SELECT pid FROM pg_stat_activity WHERE datname = %s ORDER BY random() LIMIT 1"
        for (pid,) in self._ask(ours):
            os.kill(pid, signal.SIGKILL)

    def _ask(self, question: str) -> list[tuple]:
        """Returns a question's rows; waits while the server recovers from what was done before."""
        end = time.monotonic() + RECOVERY_SECONDS
        while True:
            try:
                with self.server.connect() as connection:
                    return connection.execute(question, (self.url.rsplit("/", 1)[1],)).fetchall()
            except psycopg.OperationalError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def stop(self) -> None:
        """Ends it and removes its data."""
        self.server.stop()


def open_database(kind: str, folder: Path) -> SqliteFile | PostgresServer:
    """Returns a new, empty database of this kind."""
    return SqliteFile(folder) if kind == "sqlite" else PostgresServer()
