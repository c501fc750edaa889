"""Optuna's own rows, written inside our transaction: by Optuna's own storage, or as it would.

ours                          Optuna's
WAITING, RUNNING, PAUSED      RUNNING
COMPLETE                      COMPLETE, value
PRUNED                        PRUNED, the last visible value unless it is not finite
FAILED, CANCELLED             FAIL, user attributes lmtune_state and lmtune_reason
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

import optuna
import sqlalchemy as sa
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.exceptions import DuplicatedStudyError
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState
from sqlalchemy.orm import Session

from service.store.driver import driver
from service.store.prepared import Prepared
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
_POINT: Final = ("trial_id", "step", "intermediate_value", "intermediate_value_type")
_NEW_POINT: Final = Prepared(sa.insert(models.TrialIntermediateValueModel.__table__), _POINT)

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


@dataclass(frozen=True)
class Ended:
    """A trial that is over before it is written.

    Attributes:
        number: from 0.
        state: a terminal one.
        params: its values by name.
        distributions: Optuna's distribution of each.
        value: the objective; None without one.
        curve: (step, objective), steps rising.
        reason: why it FAILED.
        started: seconds since 1970; None: unknown.
        ended: seconds since 1970; None: unknown.
    """

    number: int
    state: TrialState
    params: Mapping[str, Any]
    distributions: Mapping[str, Any]
    value: float | None
    curve: Sequence[tuple[int, float]]
    reason: str | None
    started: float | None
    ended: float | None


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
        params = [
            _param_row(trial_id, trial.params, trial.distributions, name) for name in trial.params
        ]
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

    def add_ended(self, study_id: int, ended: Sequence[Ended]) -> list[int]:
        """Writes trials that are over, all at once; returns Optuna's ids of them in that order.

        A statement for each table: one trial after the other, ten thousand would hold the writer
        for half a minute.
        """
        table = models.TrialModel.__table__
        made = sa.insert(table).returning(table.c.trial_id, sort_by_parameter_order=True)
        rows = [_ended_row(study_id, one) for one in ended]
        ids = list(self._bound.execute(made, rows).scalars())
        parts: dict[Any, list[dict[str, Any]]] = {
            models.TrialParamModel: [],
            models.TrialValueModel: [],
            models.TrialUserAttributeModel: [],
        }
        for trial_id, one in zip(ids, ended, strict=True):
            trial = (one.params, one.distributions)
            parts[models.TrialParamModel] += [_param_row(trial_id, *trial, n) for n in one.params]
            parts[models.TrialValueModel] += _value_rows(trial_id, one)
            parts[models.TrialUserAttributeModel] += _attribute_rows(trial_id, one)
        points = ((i, point) for i, one in zip(ids, ended, strict=True) for point in one.curve)
        _NEW_POINT.run_all(self._bound, (_point_row(i, step, value) for i, (step, value) in points))
        for model, own in parts.items():
            if own:
                self._bound.execute(sa.insert(model.__table__), own)
        return ids


def has_study(conn: sa.Connection, study: sa.Row[Any]) -> bool:
    """True when Optuna's tables hold this study of ours."""
    return BoundStorage(conn).has_study(study.name, study.optuna_id)


def read_trials(
    conn: sa.Connection, study_id: int, trial_ids: Sequence[int]
) -> dict[int, FrozenTrial]:
    """Returns those of Optuna's trials of a study that have these ids of Optuna's, by id."""
    found = BoundStorage(conn)._get_trials(study_id, None, set(trial_ids), _NO_ID)
    return {trial._trial_id: trial for trial in found}


def _ended_row(study_id: int, one: Ended) -> dict[str, Any]:
    return {
        "study_id": study_id,
        "number": one.number,
        "state": STATES[one.state],
        "datetime_start": _local(one.started),
        "datetime_complete": _local(one.ended),
    }


def _local(seconds: float | None) -> datetime | None:
    """Returns a moment as Optuna writes it: local time without a zone."""
    return None if seconds is None else datetime.fromtimestamp(seconds)  # noqa: DTZ006


def _value_rows(trial_id: int, one: Ended) -> list[dict[str, Any]]:
    if one.value is None:
        return []
    stored, kind = models.TrialValueModel.value_to_stored_repr(one.value)
    return [{"trial_id": trial_id, "objective": 0, "value": stored, "value_type": kind}]


def _attribute_rows(trial_id: int, one: Ended) -> list[dict[str, Any]]:
    if STATES[one.state] is not OptunaState.FAIL:
        return []
    said = {"lmtune_state": str(one.state), "lmtune_reason": one.reason or ""}
    return [{"trial_id": trial_id, "key": k, "value_json": json.dumps(v)} for k, v in said.items()]


def _param_row(
    trial_id: int, params: Mapping[str, Any], distributions: Mapping[str, Any], name: str
) -> dict[str, Any]:
    distribution = distributions[name]
    return {
        "trial_id": trial_id,
        "param_name": name,
        "param_value": distribution.to_internal_repr(params[name]),
        "distribution_json": _json_of(distribution),
    }


@lru_cache(maxsize=1_024)
def _json_of(distribution: BaseDistribution) -> str:
    return distribution_to_json(distribution)


def _point_row(trial_id: int, step: int, value: float) -> dict[str, Any]:
    """Returns the row in plain values, for _NEW_POINT."""
    row = _intermediate_row(trial_id, step, value)
    return {**row, "intermediate_value_type": row["intermediate_value_type"].name}


def _intermediate_row(trial_id: int, step: int, value: float) -> dict[str, Any]:
    model = models.TrialIntermediateValueModel
    stored, kind = model.intermediate_value_to_stored_repr(value)
    return {
        "trial_id": trial_id,
        "step": step,
        "intermediate_value": stored,
        "intermediate_value_type": kind,
    }
