"""Optuna's own rows, written inside our transaction: by Optuna's own storage, or as it would.

ours                          Optuna's
WAITING, RUNNING, PAUSED      RUNNING
COMPLETE                      COMPLETE, value
PRUNED                        PRUNED, the last visible value unless it is not finite
FAILED, CANCELLED             FAIL, user attributes lmtune_state and lmtune_reason
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import optuna
import sqlalchemy as sa
from optuna.distributions import distribution_to_json
from optuna.exceptions import DuplicatedStudyError
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState
from sqlalchemy.orm import Session

from service.store.driver import driver
from studies.errors import Conflict, DuplicateName, StartupError
from studies.trial import TrialState

VERSION_TABLE: Final = "alembic_version"
VERSION: Final = "v3.2.0.a"  # of Optuna 5's tables; any other is for Optuna itself to look at
_NO_ID: Final = 2**31 - 1  # no trial of Optuna's has a larger one
optuna.logging.set_verbosity(optuna.logging.WARNING)

# Built once: they run with every claim or finish.
_STUDIES, _TRIALS = models.StudyModel.__table__, models.TrialModel.__table__
_OF_STUDY: Final = sa.bindparam("of_study", type_=sa.Integer)
_NAMED: Final = sa.select(_STUDIES.c.study_id).where(
    _STUDIES.c.study_name == sa.bindparam("of_name", type_=sa.String)
)
_OURS: Final = _NAMED.where(_STUDIES.c.study_id == _OF_STUDY)
_HELD: Final = (
    sa.select(_STUDIES.c.study_id).where(_STUDIES.c.study_id == _OF_STUDY).with_for_update()
)
_COUNT: Final = sa.select(sa.func.count()).where(_TRIALS.c.study_id == _OF_STUDY)
_NEW_TRIAL: Final = sa.insert(_TRIALS).returning(_TRIALS.c.trial_id)

STATES: Final[Mapping[TrialState, OptunaState]] = {
    TrialState.WAITING: OptunaState.RUNNING,
    TrialState.RUNNING: OptunaState.RUNNING,
    TrialState.PAUSED: OptunaState.RUNNING,
    TrialState.COMPLETE: OptunaState.COMPLETE,
    TrialState.PRUNED: OptunaState.PRUNED,
    TrialState.FAILED: OptunaState.FAIL,
    TrialState.CANCELLED: OptunaState.FAIL,
}


def create_tables(url: sa.URL) -> None:
    """Makes Optuna's tables, or raises StartupError where another version of Optuna made them."""
    try:
        storage = open_storage(url)
    except RuntimeError as error:
        raise StartupError(f"the database holds tables of another Optuna: {error}") from None
    storage.engine.dispose()


def open_storage(url: sa.URL) -> RDBStorage:
    """Returns Optuna's storage with connections of its own, by the library that we use too."""
    own = {"module": driver} if url.get_backend_name() == "sqlite" else {}
    return RDBStorage(url.render_as_string(hide_password=False), engine_kwargs=own)


class BoundStorage(RDBStorage):
    """Optuna's storage on an open connection: what it commits is a savepoint of our transaction.

    It lives as long as the transaction, and never opens a connection of its own.
    """

    def __init__(self, conn: sa.Connection) -> None:
        self._bound = conn
        self.engine = conn.engine  # asked for its dialect only
        self.scoped_session = self.session  # type: ignore[assignment]  # called, nothing more

    def session(self) -> Session:
        """Returns a session whose commit releases a savepoint of our transaction."""
        return Session(bind=self._bound, join_transaction_mode="create_savepoint")

    def has_study(self, name: str, study_id: int | None = None) -> bool:
        """True when Optuna's tables hold a study of this name, ours or foreign.

        With `study_id`: this one. Someone may have deleted it, and SQLite gives its id again.
        """
        if study_id is None:
            return self._bound.execute(_NAMED, {"of_name": name}).first() is not None
        said = {"of_name": name, "of_study": study_id}
        return self._bound.execute(_OURS, said).first() is not None

    def create_study(self, name: str, direction: str) -> int:
        """Writes a study; returns Optuna's id of it. Raises DuplicateName."""
        try:
            return self.create_new_study([StudyDirection[direction.upper()]], name)
        except DuplicatedStudyError:
            raise DuplicateName(f"a study named {name} exists; choose another name") from None

    def next_number(self, study_id: int) -> int:
        """Returns the number that the study's next trial will get, holding Optuna's study row."""
        # Not by a session: its savepoint's end lets the row go.
        if self._bound.execute(_HELD, {"of_study": study_id}).first() is None:
            raise Conflict("its study is no longer in Optuna's tables")
        return self.count_trials(study_id)

    def count_trials(self, study_id: int) -> int:
        """Returns how many trials the study has, foreign ones too: the next one's number."""
        return int(self._bound.execute(_COUNT, {"of_study": study_id}).scalar_one())

    def create_trial(self, study_id: int, trial: FrozenTrial) -> int:
        """Writes a RUNNING trial under its number, which `next_number` gave and holds.

        Returns Optuna's id of it. Two statements: Optuna's own way asks the database four times
        for each parameter, in which nobody else may write (half of a claim, measured).
        """
        row = {
            "study_id": study_id,
            "number": trial.number,
            "state": trial.state,
            "datetime_start": trial.datetime_start,
        }
        trial_id = int(self._bound.execute(_NEW_TRIAL, row).scalar_one())
        params = [_param_row(trial_id, trial, name) for name in trial.params]
        if params:
            self._bound.execute(sa.insert(models.TrialParamModel.__table__), params)
        return trial_id

    def end_trial(
        self,
        trial_id: int,
        state: TrialState,
        value: float | None,
        curve: Sequence[tuple[int, float]],
        reason: str | None,
    ) -> bool:
        """Writes a trial's end: exactly these intermediate values, then its state and value, once.

        False where somebody has ended or removed it through Optuna: what they wrote stays.
        """
        trials = models.TrialModel.__table__
        held = sa.select(trials.c.state).where(trials.c.trial_id == trial_id).with_for_update()
        if self._bound.execute(held).scalar() is not OptunaState.RUNNING:
            return False
        table = models.TrialIntermediateValueModel.__table__
        self._bound.execute(sa.delete(table).where(table.c.trial_id == trial_id))
        rows = [_intermediate_row(trial_id, step, loss) for step, loss in curve]
        if rows:
            self._bound.execute(sa.insert(table), rows)
        optuna_state = STATES[state]
        if optuna_state is OptunaState.FAIL:
            self.set_trial_user_attr(trial_id, "lmtune_state", str(state))
            self.set_trial_user_attr(trial_id, "lmtune_reason", reason or "")
        values = None if value is None or optuna_state is OptunaState.FAIL else [value]
        return self.set_trial_state_values(trial_id, optuna_state, values)


def has_study(conn: sa.Connection, study: sa.Row[Any]) -> bool:
    """True when Optuna's tables hold this study of ours."""
    return BoundStorage(conn).has_study(study.name, study.optuna_id)


def read_trials(
    conn: sa.Connection, study_id: int, trial_ids: Sequence[int]
) -> dict[int, FrozenTrial]:
    """Returns those of Optuna's trials of a study that have these ids of Optuna's, by id."""
    found = BoundStorage(conn)._get_trials(study_id, None, set(trial_ids), _NO_ID)
    return {trial._trial_id: trial for trial in found}


def _param_row(trial_id: int, trial: FrozenTrial, name: str) -> dict[str, Any]:
    distribution = trial.distributions[name]
    return {
        "trial_id": trial_id,
        "param_name": name,
        "param_value": distribution.to_internal_repr(trial.params[name]),
        "distribution_json": distribution_to_json(distribution),
    }


def _intermediate_row(trial_id: int, step: int, value: float) -> dict[str, Any]:
    model = models.TrialIntermediateValueModel
    stored, kind = model.intermediate_value_to_stored_repr(value)
    return {
        "trial_id": trial_id,
        "step": step,
        "intermediate_value": stored,
        "intermediate_value_type": kind,
    }
