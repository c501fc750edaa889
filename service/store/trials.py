"""Rows of trials, attempts and checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from service.store.database import Connection, Row, Tx
from service.store.tables import trials, workers
from studies.trial import Desired, TrialState


@dataclass(frozen=True)
class AttemptKey:
    """What proves that a write comes from the holder of an attempt."""

    trial_id: int
    attempt: int
    lease_hash: str


def insert(tx: Tx, **values: Any) -> Row:
    """Returns the new trial."""
    statement = trials.insert().values(created_at=tx.now, **values).returning(trials)
    return tx.conn.execute(statement).one()


def update(tx: Tx, trial_id: int, **values: Any) -> Row:
    """Changes a trial; returns the changed row."""
    return tx.conn.execute(
        trials.update().where(trials.c.id == trial_id).values(**values).returning(trials)
    ).one()


def get(conn: Connection, trial_id: int, *, hold: bool = False) -> Row | None:
    """Returns the trial of this id; `hold` keeps its worker from writing meanwhile."""
    statement = sa.select(trials).where(trials.c.id == trial_id)
    return conn.execute(statement.with_for_update() if hold else statement).one_or_none()


def by_number(conn: Connection, study_id: int, number: int) -> Row | None:
    """Returns the trial of this number."""
    return conn.execute(
        sa.select(trials).where(trials.c.study_id == study_id, trials.c.number == number)
    ).one_or_none()


def fence(tx: Tx, key: AttemptKey, lease: float, step: int | None = None) -> Row | None:
    """Renews the lease and returns the trial, if `key` still holds it; else changes nothing.

    One statement. The lease is renewed while the trial is wanted to run, and for one lease after
    that changed, so that a worker may checkpoint but not ignore what it is told.
    """
    renewing = sa.or_(trials.c.desired == Desired.RUN, tx.t - trials.c.desired_t < lease)
    values: dict[str, Any] = {
        "lease_until_t": sa.case((renewing, tx.t + lease), else_=trials.c.lease_until_t)
    }
    if step is not None:
        advanced = trials.c.progress_step < step
        values["progress_t"] = sa.case((advanced, tx.t), else_=trials.c.progress_t)
        values["progress_step"] = sa.case((advanced, step), else_=trials.c.progress_step)
    return tx.conn.execute(
        trials.update()
        .where(
            trials.c.id == key.trial_id,
            trials.c.attempt == key.attempt,
            trials.c.lease_hash == key.lease_hash,
            trials.c.state == TrialState.RUNNING,
        )
        .values(**values)
        .returning(trials)
    ).one_or_none()


def claimable(tx: Tx, study_id: int, failures_allowed: int) -> Row | None:
    """Returns the trial to grant next: WAITING, or RUNNING with its lease over; oldest first."""
    stealable = sa.and_(
        trials.c.state == TrialState.RUNNING,
        trials.c.lease_until_t < tx.t,
        trials.c.desired == Desired.RUN,
        trials.c.failures < failures_allowed,
    )
    return tx.conn.execute(
        sa.select(trials)
        .where(
            trials.c.study_id == study_id,
            sa.or_(trials.c.state == TrialState.WAITING, stealable),
        )
        .order_by(trials.c.number)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).one_or_none()


def in_state(conn: Connection, study_id: int, *states: TrialState) -> Sequence[Row]:
    """Returns the study's trials in these states, by number."""
    return conn.execute(
        sa.select(trials)
        .where(trials.c.study_id == study_id, trials.c.state.in_(states))
        .order_by(trials.c.number)
    ).all()


def overdue(conn: Connection, t: float, stalled_since: float) -> Sequence[Row]:
    """Returns RUNNING trials whose lease is over, or without a new step since `stalled_since`."""
    return conn.execute(
        sa.select(trials).where(
            trials.c.state == TrialState.RUNNING,
            sa.or_(trials.c.lease_until_t < t, trials.c.progress_t < stalled_since),
        )
    ).all()


def of_worker(conn: Connection, worker_id: int) -> Sequence[Row]:
    """Returns the RUNNING trials that a worker holds."""
    return conn.execute(
        sa.select(trials).where(
            trials.c.worker_id == worker_id, trials.c.state == TrialState.RUNNING
        )
    ).all()


def lift_leases(tx: Tx, until_t: float) -> None:
    """Lifts every live lease that would end before `until_t` to it."""
    tx.conn.execute(
        trials.update()
        .where(
            trials.c.state == TrialState.RUNNING,
            trials.c.lease_until_t >= tx.t,
            trials.c.lease_until_t < until_t,
        )
        .values(lease_until_t=until_t)
    )


def page(
    conn: Connection,
    study_id: int,
    *,
    state: TrialState | None,
    after: int,
    limit: int,
) -> Sequence[Row]:
    """Returns trials with larger numbers than `after`, with their worker's name."""
    statement = (
        sa.select(trials, workers.c.name.label("worker_name"))
        .outerjoin(workers, workers.c.id == trials.c.worker_id)
        .where(trials.c.study_id == study_id, trials.c.number > after)
    )
    if state is not None:
        statement = statement.where(trials.c.state == state)
    return conn.execute(statement.order_by(trials.c.number).limit(limit)).all()


def changed_since(conn: Connection, study_id: int, revision: int) -> Sequence[Row]:
    """Returns trials whose state changed after this revision of the study, by number."""
    return conn.execute(
        sa.select(trials)
        .where(trials.c.study_id == study_id, trials.c.revision > revision)
        .order_by(trials.c.number)
    ).all()


def best(conn: Connection, study_id: int, direction: str, limit: int = 1) -> Sequence[Row]:
    """Returns the best COMPLETE trials, the best first; of equals the earlier."""
    order = trials.c.value.asc() if direction == "minimize" else trials.c.value.desc()
    return conn.execute(
        sa.select(trials)
        .where(trials.c.study_id == study_id, trials.c.state == TrialState.COMPLETE)
        .order_by(order, trials.c.number)
        .limit(limit)
    ).all()


def last_ended(conn: Connection, study_id: int, limit: int, since: float) -> Sequence[Row]:
    """Returns the trials that ended last after `since` [s since 1970], the latest first."""
    return conn.execute(
        sa.select(trials)
        .where(trials.c.study_id == study_id, trials.c.ended_at > since)
        .order_by(trials.c.revision.desc())
        .limit(limit)
    ).all()
