"""What every use case needs besides its transaction."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from service.leases import LeaseTimes
from service.store import trials
from service.store.database import Connection, Database, Row, Tx
from service.tuning.mirror import Mirror, Seen
from studies.spec import StudySpec
from studies.trial import TrialState


class Studies:
    """The parsed studies and their mirrors, by id; both can be made anew from the database."""

    def __init__(self) -> None:
        self._specs: dict[int, StudySpec] = {}
        self._mirrors: dict[int, Mirror] = {}
        self._lock = threading.Lock()

    def spec(self, study: Row) -> StudySpec:
        """Returns the study's specification, parsed once: it never changes."""
        found = self._specs.get(study.id)
        if found is None:
            found = self._specs[study.id] = StudySpec.model_validate(study.spec)
        return found

    def mirror(self, tx: Tx, study: Row) -> Mirror:
        """Returns the study's mirror, up to date. The caller holds the study's lock.

        If the transaction does not commit, the mirror is thrown away with it.
        """
        with self._lock:
            mirror = self._mirrors.get(study.id) or Mirror(self.spec(study))
            self._mirrors[study.id] = mirror
        tx.on_rollback(lambda: self.forget(study.id))
        refresh(tx.conn, study, mirror)
        return mirror

    def forget(self, study_id: int) -> None:
        """Throws a mirror away."""
        with self._lock:
            self._mirrors.pop(study_id, None)


def refresh(conn: Connection, study: Row, mirror: Mirror) -> None:
    """Shows the mirror every trial that changed since it last looked."""
    rows = trials.changed_since(conn, study.id, mirror.revision)
    seen = (
        Seen(row.number, TrialState(row.state), row.params, row.step, row.value) for row in rows
    )
    mirror.take(seen, study.revision)


@dataclass(frozen=True)
class Context:
    """The parts that the use cases share."""

    database: Database
    lease: LeaseTimes
    studies: Studies = field(default_factory=Studies)
    wake: Callable[[], None] = lambda: None  # tells waiting claims that there may be work
