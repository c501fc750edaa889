"""`python -m tests.chaos.server`: the real server, with crash points and a clock that can jump.

Nothing of it is in the product: crash points look at the SQL that passes, and the wall clock is
`time.time` of this process. The supervisor arms them by files in the folder LMTUNE_CHAOS:

crash   `WHAT:WHEN`: the process ends at once, as by kill -9, the first time that a transaction
        which does WHAT (`POINTS`) is in the `middle` (another statement follows), `before`
        its commit, or `after` it, when nobody has been answered yet
offset  seconds that the wall clock is wrong by
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import psycopg
import sqlalchemy as sa
from sqlalchemy.engine.default import DefaultDialect

from service.store.driver import driver

LOOK_SECONDS: Final = 0.02  # how often the files are looked at
EXIT: Final = 86  # exit status at a crash point
# What a transaction does, by the beginning of the statement that does it.
POINTS: Final[dict[str, tuple[str, ...]]] = {
    "claim": ("INSERT INTO lmtune_attempts",),
    "suggest": ("INSERT INTO trials ",),  # Optuna's table, before our row of the trial
    "report": ("INSERT INTO lmtune_reports",),
    "checkpoint": ("INSERT INTO lmtune_checkpoints",),
    "end": ("UPDATE lmtune_attempts SET ended_at",),
    "optuna_end": ("UPDATE trials SET", "INSERT INTO trial_values"),  # Optuna's, at an end
}
WHENS: Final = ("middle", "before", "after")


class CrashPoints:
    """Ends the process at the armed point; sees every statement as the driver gets it."""

    def __init__(self, file: Path) -> None:
        self._file, self.armed = file, ""
        self._done: dict[int, set[str]] = {}  # what a connection's open transaction has done

    def install(self) -> None:
        """Listens to every connection of this process."""
        sa.event.listen(sa.pool.Pool, "connect", self._connected)
        execute, commit = psycopg.Cursor.execute, DefaultDialect.do_commit
        rollback = DefaultDialect.do_rollback

        def do_execute(cursor: Any, query: Any, *rest: Any, **more: Any) -> Any:
            self._sees(id(cursor.connection), str(query))
            return execute(cursor, query, *rest, **more)

        def do_commit(dialect: Any, connection: Any) -> None:
            key = id(getattr(connection, "driver_connection", connection))
            self._reach(key, "before")
            commit(dialect, connection)
            self._reach(key, "after")
            self._done.pop(key, None)

        def do_rollback(dialect: Any, connection: Any) -> None:
            self._done.pop(id(getattr(connection, "driver_connection", connection)), None)
            rollback(dialect, connection)

        psycopg.Cursor.execute = do_execute  # type: ignore[method-assign]
        DefaultDialect.do_commit = do_commit  # type: ignore[method-assign]
        DefaultDialect.do_rollback = do_rollback  # type: ignore[method-assign]
        _watch(self._file, self._arm)

    def _connected(self, connection: Any, _: Any) -> None:
        if isinstance(connection, driver.Connection):
            connection.set_trace_callback(partial(self._sees, id(connection)))

    def _arm(self, text: str) -> None:
        self.armed = text

    def _sees(self, key: int, statement: str) -> None:
        """Notes what a statement that is about to run does."""
        if self.armed:
            self._reach(key, "middle")
            did = {what for what, begins in POINTS.items() if statement.startswith(begins)}
            self._done.setdefault(key, set()).update(did)

    def _reach(self, key: int, when: str) -> None:
        what, _, at = self.armed.partition(":")
        if at == when and what in self._done.get(key, ()):
            os._exit(EXIT)


def shift_clock(file: Path) -> None:
    """Makes `time.time` wrong by what the file says [s]."""
    real, offset = time.time, [0.0]

    def say(text: str) -> None:
        offset[0] = float(text or 0.0)

    if file.exists():  # a restarted server keeps its wrong clock
        say(file.read_text())
    time.time = lambda: real() + offset[0]
    _watch(file, say)


def _watch(file: Path, tell: Callable[[str], None]) -> None:
    def look() -> None:
        said = ""
        while True:
            text = file.read_text().strip() if file.exists() else ""
            if text != said:
                tell(said := text)
            time.sleep(LOOK_SECONDS)

    threading.Thread(target=look, name=f"chaos-{file.name}", daemon=True).start()


def main() -> None:
    """Serves."""
    folder = Path(os.environ["LMTUNE_CHAOS"])
    shift_clock(folder / "offset")
    CrashPoints(folder / "crash").install()
    from service.__main__ import main as serve

    serve()


if __name__ == "__main__":
    main()
