"""What nobody calls for: the lease clock, trials nobody can take any more, unused blobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from service import leases
from service.dispatch import studies as lives
from service.dispatch.context import Context
from service.dispatch.settle import ATTEMPTS, settle
from service.launcher.base import Lost
from service.store import blobs, studies, trials, workers
from service.store.database import Tx
from studies.trial import Desired, Outcome, StudyState, TrialState

UNPOINTED_LEASES: Final = 15  # how long a blob may lie without a pointer [leases]


def tick(tx: Tx, ctx: Context) -> None:
    """Moves the lease clock; when the server was away, lifts every live lease first."""
    moved, away = leases.tick(workers.read_clock(tx.conn, hold=True), tx.now)
    if away:
        trials.lift_leases(tx, moved.t + ctx.lease.lease)
    workers.move_clock(tx, moved)


def settle_overdue(tx: Tx, ctx: Context) -> None:
    """Settles RUNNING trials that hang, or whose lease is over and that no claim may steal.

    Only a worker that is heard of can hang: one that is cut off trains on and comes back.
    """
    for row in trials.overdue(tx.conn, tx.t, tx.t - ctx.lease.stall):
        study = studies.lock(tx, row.study_id)
        trial = trials.get(tx.conn, row.id, hold=True)
        if trial is None or trial.state != TrialState.RUNNING:
            continue
        over = leases.expired(trial.lease_until_t, tx.t)
        hung = not over and leases.stalled(trial.progress_t, tx.t, ctx.lease)
        stealable = trial.desired == Desired.RUN and trial.failures < ATTEMPTS - 1
        if hung or (over and not stealable):
            outcome = Outcome.LOST if over else Outcome.HUNG
            reason = "the lease was over" if over else "no step for the stall time"
            moved = settle(tx, trial, outcome, trial.step, reason)
            lives.after_settle(tx, ctx, study, moved)


def end_overtime(tx: Tx, ctx: Context) -> None:
    """Begins the end of studies whose wall time is used up; finishes those that can end."""
    for row in studies.in_state(tx.conn, StudyState.RUNNING, StudyState.ENDING):
        study = studies.lock(tx, row.id)
        limit = ctx.studies.spec(study).budget.wall_time
        spent = lives.running_seconds(study, tx.t)
        if study.state == StudyState.RUNNING and limit is not None and spent >= limit:
            lives.begin_ending(tx, ctx, study, "wall_time")
        else:
            lives.advance(tx, ctx, study)


def worker_lost(tx: Tx, ctx: Context, lost: Lost) -> None:
    """Ends the attempts of a worker that is known to be dead, without waiting for its lease."""
    worker = workers.by_name(tx.conn, lost.worker)
    if worker is None:
        return
    workers.leave(tx, worker.id)
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
