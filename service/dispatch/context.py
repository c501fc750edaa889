"""What every use case needs besides its transaction."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from service.leases import LeaseTimes
from service.store import studies
from service.store.database import Database, Row, Tx
from service.tuning.mirror import Mirror
from studies.errors import NotFound
from studies.spec import StudySpec


class Studies:
    """The parsed studies and their mirrors, by id; both can be made anew from the database."""

    def __init__(self) -> None:
        self._specs: dict[tuple[int, float], StudySpec] = {}
        self._mirrors: dict[int, Mirror] = {}
        self._of_trial: dict[int, tuple[int, StudySpec]] = {}
        self._turns: dict[int, threading.Lock] = {}

    def spec(self, study: Row) -> StudySpec:
        """Returns the study's specification, parsed once: it never changes."""
        key = study.id, study.created_at  # the id of one whose making did not commit is given again
        found = self._specs.get(key)
        if found is None:
            found = self._specs[key] = StudySpec.model_validate(study.spec)
        return found

    def of_trial(self, tx: Tx, trial_id: int) -> tuple[int, StudySpec]:
        """Returns the id and the specification of a trial's study; raises NotFound.

        Looked up once: a trial stays in its study. (One whose making does not commit leaves its
        id to another trial.)
        """
        found = self._of_trial.get(trial_id)
        if found is not None:
            return found
        study = studies.of_trial(tx.conn, trial_id)
        if study is None:
            raise NotFound(f"there is no trial {trial_id}")
        tx.on_rollback(lambda: self._of_trial.pop(trial_id, None))
        self._of_trial[trial_id] = study.id, self.spec(study)
        return self._of_trial[trial_id]

    @contextmanager
    def turn(self, study: Row) -> Iterator[Mirror]:
        """Lends the study's mirror to one caller at a time, who holds no transaction."""
        with self._turns.setdefault(study.id, threading.Lock()):
            mirror = self._mirrors.pop(study.id, None) or Mirror(self.spec(study))
            yield mirror
            self._mirrors[study.id] = mirror  # after an error it is made anew


@dataclass(frozen=True)
class Context:
    """The parts that the use cases share."""

    database: Database
    lease: LeaseTimes
    studies: Studies = field(default_factory=Studies)
    wake: Callable[[], None] = lambda: None  # tells waiting claims that there may be work
