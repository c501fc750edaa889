"""The fence: a write of an attempt that no longer holds its trial changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final

import sqlalchemy as sa

from service.store.database import Row, Tx
from service.store.prepared import Prepared
from service.store.tables import clock, trials
from studies.trial import Desired, TrialState


@dataclass(frozen=True)
class AttemptKey:
    """What proves that a write comes from the holder of an attempt."""

    trial_id: int
    attempt: int
    lease_hash: str


# Built once, or Prepared: they run with every report and heartbeat.
_NOW: Final = sa.select(clock.c.t).scalar_subquery()


def held(said: Any) -> sa.Update:
    """Returns the fence: it renews the lease of the trial that `said` holds, and of no other.

    `said` has of_trial, of_attempt, of_hash, granted and at_step: parameters, or columns of many.
    """
    newer = trials.c.progress_step < said.at_step
    wanted = sa.or_(trials.c.desired == Desired.RUN, _NOW - trials.c.desired_t < said.granted)
    return (
        trials.update()
        .where(
            trials.c.id == said.of_trial,
            trials.c.attempt == said.of_attempt,
            trials.c.lease_hash == said.of_hash,
            trials.c.state == TrialState.RUNNING,
        )
        .values(
            lease_until_t=sa.case((wanted, _NOW + said.granted), else_=trials.c.lease_until_t),
            progress_t=sa.case((newer, _NOW), else_=trials.c.progress_t),
            progress_step=sa.case((newer, said.at_step), else_=trials.c.progress_step),
        )
    )


def advanced(said: Any) -> sa.Update:
    """Returns the fence that also makes `at_step` the last visible step, where it is a later one.

    `said` has of_study and new_value besides.
    """
    return (
        held(said)
        .where(
            trials.c.study_id == said.of_study,
            trials.c.step < said.at_step,
            trials.c.max_step >= said.at_step,
        )
        .values(step=said.at_step, value=said.new_value)
    )


_SAID: Final = SimpleNamespace(
    of_trial=sa.bindparam("of_trial", type_=trials.c.id.type),
    of_attempt=sa.bindparam("of_attempt", type_=sa.Integer),
    of_hash=sa.bindparam("of_hash", type_=sa.String),
    granted=sa.bindparam("granted", type_=sa.Float),
    of_study=sa.bindparam("of_study", type_=trials.c.study_id.type),
    at_step=sa.bindparam("at_step", type_=sa.Integer),
    new_value=sa.bindparam("new_value", type_=sa.Float),
)
_HELD: Final = held(_SAID)
_FENCE: Final = _HELD.returning(trials)
_BEAT: Final = Prepared(_HELD.returning(trials.c.worker_id, trials.c.desired))
_ADVANCE: Final = Prepared(advanced(_SAID).returning(trials.c.desired, trials.c.max_step))


def renew(tx: Tx, key: AttemptKey, granted: float, step: int | None = None) -> Row | None:
    """Renews the lease and returns the trial, if `key` still holds it; else changes nothing.

    One statement. The lease is renewed while the trial is wanted to run, and for `granted` seconds
    after that changed, so that a worker may checkpoint but not ignore what it is told. A worker
    that is at `step` has shown that it does not hang.
    """
    return tx.conn.execute(_FENCE, said(key, granted, -1 if step is None else step)).one_or_none()


def beat(tx: Tx, key: AttemptKey, granted: float, step: int) -> tuple[int, Desired] | None:
    """Does as `renew`; returns the trial's worker and what is wanted of it."""
    row = _BEAT.run(tx.conn, said(key, granted, step)).fetchone()
    return row and (row[0], Desired(row[1]))


def advance(
    tx: Tx, key: AttemptKey, study_id: int, granted: float, step: int, value: float | None
) -> tuple[Desired, int] | None:
    """Does as `renew`, and makes `step` the last visible one; None also where it is no later one.

    Returns what is wanted of the trial, and its last step.
    """
    row = _ADVANCE.run(tx.conn, said_anew(key, study_id, granted, step, value)).fetchone()
    return row and (Desired(row[0]), row[1])


def said(key: AttemptKey, granted: float, step: int) -> dict[str, Any]:
    """Returns the parameters of `held`."""
    attempt = {"of_trial": key.trial_id, "of_attempt": key.attempt, "of_hash": key.lease_hash}
    return {**attempt, "granted": granted, "at_step": step}


def said_anew(
    key: AttemptKey, study_id: int, granted: float, step: int, value: float | None
) -> dict[str, Any]:
    """Returns the parameters of `advanced`."""
    return {**said(key, granted, step), "of_study": study_id, "new_value": value}
