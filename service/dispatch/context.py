"""What every use case needs besides its transaction."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from service.leases import LeaseTimes
from service.store import studies
from service.store.database import Connection, Database, Row
from service.tuning.mirror import Mirror
from studies.errors import NotFound
from studies.spec import StudySpec


class Studies:
    """The parsed studies and their mirrors, by id; both can be made anew from the database."""

    def __init__(self) -> None:
        self._specs: dict[int, StudySpec] = {}
        self._mirrors: dict[int, Mirror] = {}
        self._of_trial: dict[int, int] = {}
        self._turns: dict[int, threading.Lock] = {}

    def spec(self, study: Row) -> StudySpec:
        """Returns the study's specification, parsed once: it never changes."""
        found = self._specs.get(study.id)
        if found is None:
            found = self._specs[study.id] = StudySpec.model_validate(study.spec)
        return found

    def of_trial(self, conn: Connection, trial_id: int) -> tuple[int, StudySpec]:
        """Returns the id and the specification of a trial's study; raises NotFound.

        Looked up once: a trial stays in its study.
        """
        study_id = self._of_trial.get(trial_id)
        spec = None if study_id is None else self._specs.get(study_id)
        if study_id is not None and spec is not None:
            return study_id, spec
        study = studies.of_trial(conn, trial_id)
        if study is None:
            raise NotFound(f"there is no trial {trial_id}")
        self._of_trial[trial_id] = study.id
        return study.id, self.spec(study)

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
