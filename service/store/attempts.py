"""Rows of attempts and of the checkpoints that they commit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from service.store.database import Connection, Row, Tx, insert_once
from service.store.tables import attempts, blobs, checkpoints, reports, trials, workers
from studies.trial import Outcome, TrialState

# Built once: they run with every claim or finish.
_BEGIN: Final = attempts.insert()
_THIS: Final = sa.and_(
    attempts.c.trial_id == sa.bindparam("of_trial"),
    attempts.c.attempt == sa.bindparam("of_attempt", type_=sa.Integer),
)
_GET: Final = sa.select(attempts).where(_THIS)
_UPDATE: Final = attempts.update().where(_THIS)
_END: Final = _UPDATE.where(attempts.c.outcome.is_(None))
_GRANTED: Final = sa.select(attempts).where(
    attempts.c.worker_id == sa.bindparam("of_worker"),
    attempts.c.claim_seq == sa.bindparam("of_seq", type_=sa.Integer),
    attempts.c.outcome.is_(None),
)
_REFUSED: Final = (
    sa.select(trials.c.study_id)
    .join(attempts, attempts.c.trial_id == trials.c.id)
    .where(
        attempts.c.worker_id == sa.bindparam("of_worker"),
        attempts.c.outcome == Outcome.INCOMPATIBLE,
    )
    .distinct()
)
_NEWEST: Final = (
    sa.select(checkpoints)
    .join(blobs, blobs.c.sha256 == checkpoints.c.sha256)
    .where(
        checkpoints.c.trial_id == sa.bindparam("of_trial"),
        checkpoints.c.bad.is_(False),
        blobs.c.state == "live",
    )
    .order_by(checkpoints.c.step.desc(), checkpoints.c.attempt.desc())
    .limit(1)
)
_NEWEST_BELOW: Final = _NEWEST.where(checkpoints.c.step < sa.bindparam("below", type_=sa.Integer))


def begin(tx: Tx, **values: Any) -> None:
    """Writes a granted attempt."""
    tx.conn.execute(_BEGIN, {"started_at": tx.now, **values})


def end(tx: Tx, trial_id: int, attempt: int, **values: Any) -> None:
    """Ends an attempt that is live."""
    where = {"of_trial": trial_id, "of_attempt": attempt}
    tx.conn.execute(_END, {"ended_at": tx.now, **values, **where})


def update(tx: Tx, trial_id: int, attempt: int, **values: Any) -> None:
    """Changes what is known of an attempt."""
    tx.conn.execute(_UPDATE, {**values, "of_trial": trial_id, "of_attempt": attempt})


def get(conn: Connection, trial_id: int, number: int) -> Row | None:
    """Returns one attempt."""
    return conn.execute(_GET, {"of_trial": trial_id, "of_attempt": number}).one_or_none()


def of_trial(conn: Connection, trial_id: int) -> Sequence[Row]:
    """Returns a trial's attempts in order, with their workers' names."""
    return conn.execute(
        sa.select(attempts, workers.c.name.label("worker_name"))
        .join(workers, workers.c.id == attempts.c.worker_id)
        .where(attempts.c.trial_id == trial_id)
        .order_by(attempts.c.attempt)
    ).all()


def latest_environment(conn: Connection, study_id: int) -> dict[str, Any] | None:
    """Returns what the study's latest attempt told of its environment."""
    return conn.execute(
        sa.select(attempts.c.environment)
        .join(trials, trials.c.id == attempts.c.trial_id)
        .where(trials.c.study_id == study_id, attempts.c.environment.is_not(sa.null()))
        .order_by(attempts.c.started_at.desc())
        .limit(1)
    ).scalar()


def latest_of_study(conn: Connection, study_id: int, limit: int) -> Sequence[Row]:
    """Returns the study's latest attempts, with their trials' numbers and workers' names."""
    return conn.execute(
        sa.select(attempts, trials.c.number, workers.c.name.label("worker_name"))
        .join(trials, trials.c.id == attempts.c.trial_id)
        .join(workers, workers.c.id == attempts.c.worker_id)
        .where(trials.c.study_id == study_id)
        .order_by(attempts.c.started_at.desc())
        .limit(limit)
    ).all()


def last_told(conn: Connection, study_id: int, limit: int) -> Sequence[Row]:
    """Returns the last report (`body`) of the study's latest attempts that have any.

    With each the trial's `number`, the `device` of its worker, and when it began (`started_at`).
    """
    latest = (
        sa.select(
            attempts.c.trial_id,
            attempts.c.attempt,
            attempts.c.started_at,
            trials.c.number,
            workers.c.device,
        )
        .join(trials, trials.c.id == attempts.c.trial_id)
        .join(workers, workers.c.id == attempts.c.worker_id)
        .where(trials.c.study_id == study_id)
        .order_by(attempts.c.started_at.desc())
        .limit(limit)
        .subquery()
    )
    last = (
        sa.select(sa.func.max(reports.c.step))
        .where(reports.c.trial_id == latest.c.trial_id, reports.c.attempt == latest.c.attempt)
        .correlate(latest)
        .scalar_subquery()
    )
    shown = [latest.c.number, latest.c.device, latest.c.started_at, reports.c.body]
    return conn.execute(
        sa.select(*shown).where(
            reports.c.trial_id == latest.c.trial_id,
            reports.c.attempt == latest.c.attempt,
            reports.c.step == last,
        )
    ).all()


def spent(conn: Connection, study_id: int, now: float) -> Sequence[Row]:
    """Returns how many attempts (`ended`) and their seconds, by device and outcome."""
    seconds = sa.func.coalesce(attempts.c.ended_at, now) - attempts.c.started_at
    ended, whole = sa.func.count().label("ended"), sa.func.sum(seconds).label("seconds")
    return conn.execute(
        sa.select(workers.c.device, attempts.c.outcome, ended, whole)
        .join(trials, trials.c.id == attempts.c.trial_id)
        .join(workers, workers.c.id == attempts.c.worker_id)
        .where(trials.c.study_id == study_id)
        .group_by(workers.c.device, attempts.c.outcome)
        .order_by(workers.c.device, attempts.c.outcome)
    ).all()


def held_since(conn: Connection, study_id: int, revision: int) -> Sequence[Row]:
    """Returns the trials that changed after this revision of the study and have attempts.

    Each with its `id`, `revision` and `state`, the `seconds` of its attempts that ended, and when
    the live one began (`live_since`).
    """
    seconds = sa.func.sum(sa.func.coalesce(attempts.c.ended_at - attempts.c.started_at, 0.0))
    began = sa.func.max(sa.case((attempts.c.ended_at.is_(None), attempts.c.started_at)))
    trial = [trials.c.id, trials.c.revision, trials.c.state]
    summed = [seconds.label("seconds"), began.label("live_since")]
    return conn.execute(
        sa.select(*trial, *summed)
        .join(attempts, attempts.c.trial_id == trials.c.id)
        .where(trials.c.study_id == study_id, trials.c.revision > revision)
        .group_by(*trial)
        .order_by(trials.c.revision)
    ).all()


def granted_under(conn: Connection, worker_id: int, seq: int) -> Row | None:
    """Returns the live attempt granted under a worker's claim of this number."""
    return conn.execute(_GRANTED, {"of_worker": worker_id, "of_seq": seq}).one_or_none()


def workers_that_refused(conn: Connection, trial_id: int, and_this: int) -> int:
    """Returns how many workers could not run a trial, with the one that says so now."""
    refused = sa.or_(attempts.c.outcome == Outcome.INCOMPATIBLE, attempts.c.worker_id == and_this)
    count = sa.select(sa.func.count(attempts.c.worker_id.distinct()))
    return int(conn.execute(count.where(attempts.c.trial_id == trial_id, refused)).scalar_one())


def studies_refused_by(conn: Connection, worker_id: int) -> set[int]:
    """Returns the studies of which a worker could not run a trial."""
    return set(conn.execute(_REFUSED, {"of_worker": worker_id}).scalars())


def add_checkpoint(tx: Tx, **values: Any) -> None:
    """Commits a pointer; the same pointer again changes nothing."""
    tx.conn.execute(insert_once(tx, checkpoints).values(created_at=tx.now, **values))


def newest_checkpoint(conn: Connection, trial_id: int, below: int | None = None) -> Row | None:
    """Returns the good pointer at the highest step (below one) whose blob is there."""
    if below is None:
        return conn.execute(_NEWEST, {"of_trial": trial_id}).one_or_none()
    return conn.execute(_NEWEST_BELOW, {"of_trial": trial_id, "below": below}).one_or_none()


def mark_bad(tx: Tx, trial_id: int, above_step: int) -> None:
    """Marks the pointers above a step as not to be resumed from."""
    tx.conn.execute(
        checkpoints.update()
        .where(checkpoints.c.trial_id == trial_id, checkpoints.c.step > above_step)
        .values(bad=True)
    )


def keep_newest_checkpoints(tx: Tx, trial_id: int, keep: int, *steps: int) -> None:
    """Drops a trial's pointers but those of the highest steps; those of `steps` stay before any.

    Not those written last: a pointer may come again, late, and the wall clock may go back.
    """
    wanted = sa.case((checkpoints.c.step.in_(steps), 0), else_=1)
    newest = (
        sa.select(checkpoints.c.attempt, checkpoints.c.step)
        .where(checkpoints.c.trial_id == trial_id)
        .order_by(
            checkpoints.c.bad, wanted, checkpoints.c.step.desc(), checkpoints.c.attempt.desc()
        )
        .limit(keep)
    )
    kept = [(row.attempt, row.step) for row in tx.conn.execute(newest)]
    tx.conn.execute(
        checkpoints.delete().where(
            checkpoints.c.trial_id == trial_id,
            sa.tuple_(checkpoints.c.attempt, checkpoints.c.step).not_in(kept),
        )
    )


def keep_checkpoints_of(tx: Tx, study_id: int, trial_ids: Sequence[int]) -> None:
    """Drops the pointers of a study's COMPLETE trials, but those of these."""
    complete = sa.exists().where(
        trials.c.id == checkpoints.c.trial_id,
        trials.c.study_id == study_id,
        trials.c.state == TrialState.COMPLETE,
    )
    others = checkpoints.c.trial_id.not_in(trial_ids)
    tx.conn.execute(checkpoints.delete().where(complete, others))
