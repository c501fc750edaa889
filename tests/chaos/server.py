"""`python -m tests.chaos.server`: the real server, with crash points and a clock that can jump.

Nothing of it is in the product: crash points look at the SQL that passes, and the wall clock is
`time.time` of this process. The supervisor arms them by files in the folder LMTUNE_CHAOS:

crash   `WHAT:WHEN`: the process ends at once, as by kill -9, the first time that a transaction
        which does WHAT (`POINTS`) is in the `middle` (its first such statement is done), `before`
        its commit, or `after` it, when nobody has been answered yet
offset  seconds that the wall clock is wrong by
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine.default import DefaultDialect

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
_SEEN: Final = "chaos"  # where a connection keeps what its transaction has done


class CrashPoints:
    """Ends the process at the armed point."""

    def __init__(self, file: Path) -> None:
        self._file, self.armed = file, ""
        self._thread = threading.local()

    def install(self) -> None:
        """Listens to every engine of this process."""
        sa.event.listen(sa.Engine, "begin", self._begin)
        sa.event.listen(sa.Engine, "after_cursor_execute", self._executed)
        sa.event.listen(sa.Engine, "commit", lambda conn: self._reach(conn, "before"))
        commit = DefaultDialect.do_commit

        def do_commit(dialect: Any, connection: Any) -> None:
            commit(dialect, connection)
            if getattr(self._thread, "committing", False):
                os._exit(EXIT)

        DefaultDialect.do_commit = do_commit  # type: ignore[method-assign]
        _watch(self._file, self._arm)

    def _arm(self, text: str) -> None:
        self.armed = text

    def _begin(self, conn: sa.Connection) -> None:
        conn.info[_SEEN] = set()

    def _executed(self, conn: sa.Connection, cursor: Any, statement: str, *_: Any) -> None:
        if not self.armed:
            return
        for what, beginnings in POINTS.items():
            if statement.startswith(beginnings):
                conn.info.setdefault(_SEEN, set()).add(what)
                self._reach(conn, "middle")

    def _reach(self, conn: sa.Connection, when: str) -> None:
        what, _, at = self.armed.partition(":")
        if what not in conn.info.get(_SEEN, ()):
            return
        if at == when:
            os._exit(EXIT)
        self._thread.committing = at == "after" and when == "before"


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
