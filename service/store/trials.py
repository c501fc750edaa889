"""Rows of trials, attempts and checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from service.store.database import Connection, Row, Tx
from service.store.tables import attempts, reports, studies, trials, workers
from studies.trial import TERMINAL, Desired, StudyState, TrialState

# Not the index of (study, number): SQLite would read all trials in order to sort the few found by
# their state (24 ms at 10,000 trials, 0.1 ms like this; measured).
_FEW_BY_NUMBER: Final = trials.c.number + 0

# Built once: they run with every claim or finish.
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
            sa.and_(
                trials.c.state == TrialState.WAITING,
                sa.bindparam("waiting", type_=sa.Boolean),
            ),
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


_VIEWED: Final = ("id", "number", "revision", "state", "params", "value", "step", "max_step")
_SHOWN: Final = [trials.c[name] for name in (*_VIEWED, "reason", "started_at", "ended_at")]


def insert(tx: Tx, **values: Any) -> Row:
    """Returns the new trial."""
    return tx.conn.execute(_INSERT, {"created_at": tx.now, **values}).one()


def insert_all(tx: Tx, rows: Sequence[dict[str, Any]]) -> Sequence[int]:
    """Writes trials, each with the same columns; returns their ids in the same order."""
    made = trials.insert().returning(trials.c.id, sort_by_parameter_order=True)
    return tx.conn.execute(made, [{"created_at": tx.now, **row} for row in rows]).scalars().all()


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


def claimable(tx: Tx, study_id: int, failures_allowed: int, *, waiting: bool = True) -> Row | None:
    """Returns the trial to grant next: RUNNING with its lease over, or WAITING; oldest first.

    Without `waiting` only a RUNNING one, whose place the next attempt takes.
    """
    asked = {
        "of_study": study_id,
        "now_t": tx.t,
        "allowed": failures_allowed,
        "waiting": waiting,
    }
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
    """Returns trials with larger numbers than `after`, with the name of their worker.

    Of a trial that has ended: of the worker that trained it last.
    """
    newest = sa.and_(
        attempts.c.trial_id == trials.c.id,
        attempts.c.attempt == trials.c.attempt,
        trials.c.state.in_(TERMINAL),
    )
    worker_id = sa.func.coalesce(trials.c.worker_id, attempts.c.worker_id)
    statement = (
        sa.select(trials, workers.c.name.label("worker_name"))
        .outerjoin(attempts, newest)
        .outerjoin(workers, workers.c.id == worker_id)
        .where(trials.c.study_id == study_id, trials.c.number > after)
    )
    if state is not None:
        statement = statement.where(trials.c.state == state)
    return conn.execute(statement.order_by(trials.c.number).limit(limit)).all()


def changed_since(
    conn: Connection, study_id: int, revision: int, limit: int | None = None
) -> Sequence[Row]:
    """Returns trials whose state changed after this revision of the study, in that order.

    Of their columns only what views and mirrors keep: a long study has many rows.
    """
    return conn.execute(
        sa.select(*_SHOWN)
        .where(trials.c.study_id == study_id, trials.c.revision > revision)
        .order_by(trials.c.revision)
        .limit(limit)
    ).all()


def completed_since(conn: Connection, study_id: int, revision: int) -> Sequence[sa.Row[int, float]]:
    """Returns (revision, value) of the trials that completed after this revision, in that order."""
    return conn.execute(
        sa.select(trials.c.revision, trials.c.value)
        .where(
            trials.c.study_id == study_id,
            trials.c.revision > revision,
            trials.c.state == TrialState.COMPLETE,
            trials.c.value.is_not(None),
        )
        .order_by(trials.c.revision)
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


def complete(conn: Connection, study_id: int) -> int:
    """Returns how many COMPLETE trials the study has."""
    return int(conn.execute(_count_complete(study_id)).scalar_one())


def better(conn: Connection, study_id: int, value: float, direction: str) -> int:
    """Returns how many COMPLETE trials of the study have a better value."""
    ahead = trials.c.value < value if direction == "minimize" else trials.c.value > value
    return int(conn.execute(_count_complete(study_id).where(ahead)).scalar_one())


def _count_complete(study_id: int) -> sa.Select[int]:
    return (
        sa.select(sa.func.count())
        .select_from(trials)
        .where(trials.c.study_id == study_id, trials.c.state == TrialState.COMPLETE)
    )


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
