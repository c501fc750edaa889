"""What every use case needs besides its transaction."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from service.leases import LeaseTimes
from service.store import studies
from service.store.database import Database, Row, Tx
from service.tuning.mirror import Mirror
from studies.errors import NotFound
from studies.spec import StudySpec


class Studies:
    """The parsed studies and their mirrors, by id; both can be made anew from the database."""

    def __init__(self) -> None:
        self._specs: dict[int, tuple[dict[str, Any], StudySpec]] = {}
        self._mirrors: dict[int, Mirror] = {}
        self._of_trial: dict[int, tuple[int, StudySpec]] = {}
        self._turns: dict[int, threading.Lock] = {}

    def spec(self, study: Row) -> StudySpec:
        """Returns the study's specification as the row has it, parsed once for each change of it.

        (The id of a study whose making did not commit is given again, to another one.)
        """
        found = self._specs.get(study.id)
        if found is None or found[0] != study.spec:
            found = self._specs[study.id] = study.spec, StudySpec.model_validate(study.spec)
        return found[1]

    def of_trial(self, tx: Tx, trial_id: int) -> tuple[int, StudySpec]:
        """Returns the id and the specification of a trial's study; raises NotFound.

        Looked up once: a trial stays in its study, of whose specification only the budget and the
        search space change. (One whose making does not commit leaves its id to another trial.)
        """
        found = self._of_trial.get(trial_id)
        if found is not None:
            return found
        study = studies.of_trial(tx.conn, trial_id)
        if study is None:
            raise NotFound(f"there is no trial {trial_id}")
        return self.learn(tx, trial_id, study)

    def learn(self, tx: Tx, trial_id: int, study: Row) -> tuple[int, StudySpec]:
        """Keeps what `of_trial` would look up, and returns it."""
        tx.on_rollback(lambda: self._of_trial.pop(trial_id, None))
        self._of_trial[trial_id] = study.id, self.spec(study)
        return self._of_trial[trial_id]

    def known(self, trial_id: int) -> tuple[int, StudySpec] | None:
        """Returns what `of_trial` has found before."""
        return self._of_trial.get(trial_id)

    @contextmanager
    def turn(self, study: Row) -> Iterator[Mirror]:
        """Lends the study's mirror to one caller at a time, who holds no transaction."""
        with self._turns.setdefault(study.id, threading.Lock()):
            mirror, spec = self._mirrors.pop(study.id, None), self.spec(study)
            if mirror is None or mirror.spec.space != spec.space:
                mirror = Mirror(spec)
            yield mirror
            self._mirrors[study.id] = mirror  # after an error it is made anew


@dataclass(frozen=True)
class Context:
    """The parts that the use cases share."""

    database: Database
    lease: LeaseTimes
    studies: Studies = field(default_factory=Studies)
    wake: Callable[[], None] = lambda: None  # tells waiting claims that there may be work
