"""The best value so far of each study, as a line small enough for a list of studies."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Final

from service.store import studies, trials
from service.store.database import Connection, Database

POINTS: Final = 60  # of a line; assumption: a list shows no more


@dataclass
class _Line:
    revision: int = -1  # of the study: what has changed up to there is in the line
    complete: int = 0
    records: list[tuple[int, float]] = field(default_factory=list)  # (complete trials, best)


class Sparks:
    """The lines of one server, each fed with the trials that ended since its last look."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lines: dict[int, _Line] = {}
        self._lock = threading.Lock()

    def of(self, name: str, direction: str) -> list[tuple[int, float]]:
        """Returns (complete trials, best value): at records, the last ones, and at the end."""

        def read(conn: Connection) -> _Line:
            row = studies.by_name(conn, name)
            if row is None:
                return _Line()
            line = self._lines.setdefault(row.id, _Line())
            for revision, value in trials.completed_since(conn, row.id, line.revision):
                line.revision, line.complete = revision, line.complete + 1
                best = line.records[-1][1] if line.records else None
                if best is None or (value < best if direction == "minimize" else value > best):
                    line.records.append((line.complete, value))
            return line

        with self._lock:
            line = self._database.read(read)
            shown = line.records[-POINTS:]
            return [*shown, (line.complete, shown[-1][1])] if shown else []
