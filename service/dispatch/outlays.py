"""For how long workers have held each study's trials: what it has cost so far."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from service.store import attempts, studies
from service.store.database import Connection, Database
from studies.trial import TrialState


@dataclass
class _Outlay:
    revision: int = -1  # of the study: what has changed up to there is in it
    over: float = 0.0  # by terminal trials [s]
    going: dict[int, tuple[float, float | None]] = field(default_factory=dict)
    # by the ids of the others: [s] of attempts that ended, and when the live one began


class Outlays:
    """The outlays of one server, each fed with the trials that changed since its last look."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._outlays: dict[int, _Outlay] = {}
        self._lock = threading.Lock()

    def of(self, name: str) -> float:
        """Returns the time from grant to end of all attempts of a study, up to now [s]."""

        def read(conn: Connection) -> _Outlay:
            row = studies.by_name(conn, name)
            if row is None:
                return _Outlay()
            outlay = self._outlays.setdefault(row.id, _Outlay())
            for trial in attempts.held_since(conn, row.id, outlay.revision):
                outlay.revision = trial.revision
                outlay.going.pop(trial.id, None)
                if TrialState(trial.state).terminal:
                    outlay.over += trial.seconds
                else:
                    outlay.going[trial.id] = trial.seconds, trial.live_since
            return outlay

        with self._lock:
            outlay, now = self._database.read(read), time.time()
            live = sum(now - since for _, since in outlay.going.values() if since is not None)
            return outlay.over + sum(ended for ended, _ in outlay.going.values()) + live
