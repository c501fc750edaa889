"""What nobody calls for: the lease clock, trials nobody can take any more, unused blobs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from service import leases
from service.dispatch import studies as lives
from service.dispatch.context import Context
from service.dispatch.matching import Fleet
from service.dispatch.settle import ATTEMPTS, settle
from service.launcher.base import Lost
from service.store import blobs, studies, trials, workers
from service.store.database import Connection, Row, Tx
from studies.trial import Desired, Outcome, StudyState, TrialState

logger = logging.getLogger(__name__)
UNPOINTED_LEASES: Final = 15  # how long a blob may lie without a pointer [leases]


def sweep(ctx: Context) -> None:
    """Settles what nobody can take any more, and ends the studies whose time is over.

    Each trial and each study in a transaction of its own: a defect in one is logged and holds no
    other up.
    """
    for trial in ctx.database.read(lambda conn: _overdue(conn, ctx)):
        _apart(ctx, partial(settle_overdue, ctx=ctx, row=trial), f"trial {trial.id}")
    for study in ctx.database.read(lambda conn: _over(conn, ctx)):
        _apart(ctx, partial(end_overtime, ctx=ctx, study_id=study.id), f"study {study.name}")


def _apart(ctx: Context, work: Callable[[Tx], Any], what: str) -> None:
    try:
        ctx.database.write(work)
    except Exception:
        logger.exception("%s cannot be settled; the next sweep tries again", what)


def tick(tx: Tx, ctx: Context) -> None:
    """Moves the lease clock; when the server was away, lifts every live lease first."""
    clock = workers.read_clock(tx.conn, hold=True)
    moved, away = leases.tick(clock, tx.now)
    if away:
        gap = tx.now - clock.wall
        logger.warning("%+.1f s since the last tick: live leases get their full length", gap)
        trials.lift_leases(tx, moved.t + ctx.lease.granted)
    workers.move_clock(tx, moved)


def _overdue(conn: Connection, ctx: Context) -> list[Row]:
    """Returns the RUNNING trials that hang, or whose lease is over and that nobody may steal."""
    t = workers.read_clock(conn).t
    return [row for row in trials.overdue(conn, t, t - ctx.lease.stall) if _lost_how(ctx, row, t)]


def _lost_how(ctx: Context, trial: Row, t: float) -> tuple[Outcome, str] | None:
    """Returns how a RUNNING trial's attempt has ended though nobody said so; None: it has not.

    Only a worker that is heard of can hang: one that is cut off trains on and comes back.
    """
    if leases.expired(trial.lease_until_t, t):
        stealable = trial.desired == Desired.RUN and trial.failures < ATTEMPTS - 1
        return None if stealable else (Outcome.LOST, "the lease was over")
    hung = leases.stalled(trial.progress_t, t, ctx.lease)
    return (Outcome.HUNG, "no step for the stall time") if hung else None


def settle_overdue(tx: Tx, ctx: Context, row: Row) -> None:
    """Settles a trial that was overdue, if it still is."""
    study = studies.lock(tx, row.study_id)
    trial = trials.get(tx.conn, row.id, hold=True)
    if trial is None or trial.state != TrialState.RUNNING:
        return
    if how := _lost_how(ctx, trial, tx.t):
        outcome, reason = how
        moved = settle(tx, trial, outcome, trial.step, reason)
        lives.after_settle(tx, ctx, study, moved)


def _over(conn: Connection, ctx: Context) -> list[Row]:
    """Returns the studies whose wall time is used up, or of which no trial waits or runs."""
    t = workers.read_clock(conn).t
    rows = studies.in_state(conn, StudyState.RUNNING, StudyState.ENDING)
    return [
        row
        for row in rows
        if _overtime(ctx, row, t) or not lives.going(studies.counts(conn, row.id))
    ]


def _overtime(ctx: Context, study: Row, t: float) -> bool:
    limit = ctx.studies.spec(study).budget.wall_time
    running = study.state == StudyState.RUNNING
    return running and limit is not None and lives.running_seconds(study, t) >= limit


def end_overtime(tx: Tx, ctx: Context, study_id: int) -> None:
    """Begins the end of a study whose wall time is used up; finishes one that can end."""
    study = studies.lock(tx, study_id)
    if _overtime(ctx, study, tx.t):
        lives.begin_ending(tx, ctx, study, "wall_time")
    else:
        lives.advance(tx, ctx, study)


def wanted_workers(conn: Connection, ctx: Context) -> int:
    """Returns how many workers the studies can use now: one for each trial that may yet train."""
    rows = studies.in_state(conn, StudyState.RUNNING, StudyState.ENDING)
    fleet = Fleet(conn, ctx)
    return sum(_useful(fleet, ctx, row, studies.counts(conn, row.id)) for row in rows)


def _useful(fleet: Fleet, ctx: Context, study: Row, counts: dict[TrialState, int]) -> int:
    if study.state == StudyState.ENDING:
        return counts.get(TrialState.RUNNING, 0)
    spec = ctx.studies.spec(study)
    room = max(spec.budget.trials - lives.slots(counts), 0)
    useful = max(room + sum(n for state, n in counts.items() if not state.terminal), 1)
    if not counts.get(TrialState.RUNNING) and fleet.lacking(spec):
        return 1  # what is there is of no use to it: one more may be, not as many as it has trials
    return min(useful, spec.resources.workers or useful)


def worker_lost(tx: Tx, ctx: Context, lost: Lost) -> None:
    """Ends the attempts of a worker that is known to be dead, without waiting for its lease."""
    worker = workers.by_name(tx.conn, lost.worker)
    if worker is None:
        if not lost.elsewhere:
            return
        worker = workers.insert_unseen(tx, lost.worker)
    workers.lose(tx, worker.id)
    for row in trials.of_worker(tx.conn, worker.id):
        study = studies.lock(tx, row.study_id)
        trial = trials.get(tx.conn, row.id, hold=True)
        if trial is None or trial.state != TrialState.RUNNING or trial.worker_id != worker.id:
            continue
        moved = settle(tx, trial, Outcome.LOST, trial.step, f"the worker is gone: {lost.reason}")
        lives.after_settle(tx, ctx, study, moved)


def worker_gone(tx: Tx, worker_id: int) -> None:
    """Records that a worker ended by itself; a claim of it that still waits gets nothing."""
    workers.leave(tx, worker_id)


def mark_unused_blobs(tx: Tx, ctx: Context) -> list[str]:
    """Returns the hashes of checkpoint blobs that nothing points at, marked dying."""
    return blobs.mark_dying(tx, tx.now - UNPOINTED_LEASES * ctx.lease.lease)


def collect_blob(tx: Tx, sha256: str, remove: Callable[[str], None]) -> None:
    """Removes a blob that is still dying; one that was uploaded again meanwhile lives on."""
    if blobs.drop_dying(tx, sha256):
        remove(sha256)
