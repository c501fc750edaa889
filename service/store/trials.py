"""Rows of trials, attempts and checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from service.store.database import Connection, Row, Tx
from service.store.prepared import Prepared
from service.store.tables import clock, reports, studies, trials, workers
from studies.trial import Desired, StudyState, TrialState


@dataclass(frozen=True)
class AttemptKey:
    """What proves that a write comes from the holder of an attempt."""

    trial_id: int
    attempt: int
    lease_hash: str


# Not the index of (study, number): SQLite would read all trials in order to sort the few found by
# their state (24 ms at 10,000 trials, 0.1 ms like this; measured).
_FEW_BY_NUMBER: Final = trials.c.number + 0

# Built once, or Prepared: they run with every report and heartbeat.
_NOW: Final = sa.select(clock.c.t).scalar_subquery()
_LEASE: Final = sa.bindparam("lease", type_=sa.Float)
_AT_STEP: Final = sa.bindparam("at_step", type_=sa.Integer)
_HELD: Final = (
    trials.update()
    .where(
        trials.c.id == sa.bindparam("of_trial"),
        trials.c.attempt == sa.bindparam("of_attempt", type_=sa.Integer),
        trials.c.lease_hash == sa.bindparam("of_hash", type_=sa.String),
        trials.c.state == TrialState.RUNNING,
    )
    .values(
        lease_until_t=sa.case(
            (
                sa.or_(trials.c.desired == Desired.RUN, _NOW - trials.c.desired_t < _LEASE),
                _NOW + _LEASE,
            ),
            else_=trials.c.lease_until_t,
        ),
        progress_t=sa.case((trials.c.progress_step < _AT_STEP, _NOW), else_=trials.c.progress_t),
        progress_step=sa.case(
            (trials.c.progress_step < _AT_STEP, _AT_STEP), else_=trials.c.progress_step
        ),
    )
)
_FENCE: Final = _HELD.returning(trials)
_BEAT: Final = Prepared(_HELD.returning(trials.c.worker_id, trials.c.desired))
_ADVANCE: Final = Prepared(
    _HELD.where(
        trials.c.study_id == sa.bindparam("of_study"),
        trials.c.step < _AT_STEP,
        trials.c.max_step >= _AT_STEP,
    )
    .values(step=_AT_STEP, value=sa.bindparam("new_value", type_=sa.Float))
    .returning(trials.c.desired, trials.c.max_step)
)


_OF_TRIAL: Final = trials.c.id == sa.bindparam("of_trial")
_INSERT: Final = trials.insert().returning(trials)
_UPDATE: Final = trials.update().where(_OF_TRIAL).returning(trials)
_GET: Final = sa.select(trials).where(_OF_TRIAL)
_HOLD: Final = _GET.with_for_update(key_share=True)
_CLAIMABLE: Final = (
    sa.select(trials)
    .where(
        trials.c.study_id == sa.bindparam("of_study"),
        trials.c.state.in_((TrialState.WAITING, TrialState.RUNNING)),
        sa.or_(
            trials.c.state == TrialState.WAITING,
            sa.and_(
                trials.c.state == TrialState.RUNNING,
                trials.c.lease_until_t < sa.bindparam("now_t", type_=sa.Float),
                trials.c.desired == Desired.RUN,
                trials.c.failures < sa.bindparam("allowed", type_=sa.Integer),
            ),
        ),
    )
    .order_by(_FEW_BY_NUMBER)
    .limit(1)
    .with_for_update(skip_locked=True, key_share=True)
)


def insert(tx: Tx, **values: Any) -> Row:
    """Returns the new trial."""
    return tx.conn.execute(_INSERT, {"created_at": tx.now, **values}).one()


def update(tx: Tx, trial_id: int, **values: Any) -> Row:
    """Changes a trial; returns the changed row."""
    return tx.conn.execute(_UPDATE, {**values, "of_trial": trial_id}).one()


def get(conn: Connection, trial_id: int, *, hold: bool = False) -> Row | None:
    """Returns the trial of this id; `hold` keeps its worker from writing meanwhile."""
    return conn.execute(_HOLD if hold else _GET, {"of_trial": trial_id}).one_or_none()


def by_number(conn: Connection, study_id: int, number: int) -> Row | None:
    """Returns the trial of this number."""
    return conn.execute(
        sa.select(trials).where(trials.c.study_id == study_id, trials.c.number == number)
    ).one_or_none()


def fence(tx: Tx, key: AttemptKey, lease: float, step: int | None = None) -> Row | None:
    """Renews the lease and returns the trial, if `key` still holds it; else changes nothing.

    One statement. The lease is renewed while the trial is wanted to run, and for one lease after
    that changed, so that a worker may checkpoint but not ignore what it is told. A worker that is
    at `step` has shown that it does not hang.
    """
    said = _said(key, lease, -1 if step is None else step)
    return tx.conn.execute(_FENCE, said).one_or_none()


def beat(tx: Tx, key: AttemptKey, lease: float, step: int) -> tuple[int, Desired] | None:
    """Does as `fence`; returns the trial's worker and what is wanted of it."""
    row = _BEAT.run(tx.conn, _said(key, lease, step)).fetchone()
    return row and (row[0], Desired(row[1]))


def advance(
    tx: Tx, key: AttemptKey, study_id: int, lease: float, step: int, value: float | None
) -> tuple[Desired, int] | None:
    """Does as `fence`, and makes `step` the last visible one; None also where it is no later one.

    Returns what is wanted of the trial, and its last step.
    """
    said = {**_said(key, lease, step), "of_study": study_id, "new_value": value}
    row = _ADVANCE.run(tx.conn, said).fetchone()
    return row and (Desired(row[0]), row[1])


def _said(key: AttemptKey, lease: float, step: int) -> dict[str, Any]:
    held = {"of_trial": key.trial_id, "of_attempt": key.attempt, "of_hash": key.lease_hash}
    return {**held, "lease": lease, "at_step": step}


def claimable(tx: Tx, study_id: int, failures_allowed: int) -> Row | None:
    """Returns the trial to grant next: WAITING, or RUNNING with its lease over; oldest first."""
    asked = {"of_study": study_id, "now_t": tx.t, "allowed": failures_allowed}
    return tx.conn.execute(_CLAIMABLE, asked).one_or_none()


def in_state(conn: Connection, study_id: int, *states: TrialState) -> Sequence[Row]:
    """Returns the study's trials in these states, by number."""
    return conn.execute(
        sa.select(trials)
        .where(trials.c.study_id == study_id, trials.c.state.in_(states))
        .order_by(_FEW_BY_NUMBER)
    ).all()


def overdue(conn: Connection, t: float, stalled_since: float) -> Sequence[Row]:
    """Returns RUNNING trials whose lease is over, or without a new step since `stalled_since`."""
    live = sa.select(studies.c.id).where(studies.c.state != StudyState.ENDED)
    return conn.execute(
        sa.select(trials).where(
            trials.c.study_id.in_(live),  # by the index: most trials have ended
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


def changed_since(
    conn: Connection, study_id: int, revision: int, limit: int | None = None
) -> Sequence[Row]:
    """Returns trials whose state changed after this revision of the study, in that order."""
    return conn.execute(
        sa.select(trials)
        .where(trials.c.study_id == study_id, trials.c.revision > revision)
        .order_by(trials.c.revision)
        .limit(limit)
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


def best_paused(conn: Connection, study_id: int, step: int, direction: str) -> Row | None:
    """Returns the best trial that the scheduler paused at a rung, with its value `at_rung`.

    Its report of that step is visible and finite, and it was not promoted from there.
    """
    order = reports.c.value.asc() if direction == "minimize" else reports.c.value.desc()
    return conn.execute(
        sa.select(trials, reports.c.value.label("at_rung"))
        .join(reports, reports.c.trial_id == trials.c.id)
        .where(
            trials.c.study_id == study_id,
            trials.c.state == TrialState.PAUSED,
            trials.c.paused_by == "scheduler",
            trials.c.promoted_step < step,
            reports.c.step == step,
            reports.c.superseded.is_(False),
            reports.c.value.is_not(None),
        )
        .order_by(order, trials.c.number)
        .limit(1)
    ).one_or_none()


def last_ended(conn: Connection, study_id: int, limit: int, since: int) -> Sequence[Row]:
    """Returns the trials that ended last after this revision, the latest first; no cancelled."""
    ended = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED)
    return conn.execute(
        sa.select(trials)
        .where(trials.c.study_id == study_id, trials.c.revision > since, trials.c.state.in_(ended))
        .order_by(trials.c.revision.desc())
        .limit(limit)
    ).all()
