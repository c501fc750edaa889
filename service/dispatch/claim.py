"""A worker asks for a trial: one released or expired first, else a new suggestion."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from service.dispatch import studies as lives
from service.dispatch.context import Context
from service.dispatch.settle import ATTEMPTS, move
from service.store import attempts, reports, studies, trials, workers
from service.store.database import Row, Tx
from service.store.optuna_rows import BoundStorage
from studies.errors import InvalidInput, NotFound, StaleClaim
from studies.spec import StudySpec
from studies.trial import Outcome, StudyState, TrialState
from studies.wire import PROTOCOL, ClaimBody, Grant, RegisterBody, Registered, Resume

MISFITS: Final = 16  # configurations in a row that fit no recipe, then the claim gets nothing


def register(tx: Tx, ctx: Context, body: RegisterBody) -> Registered:
    """Makes a worker known; the same registration again gets the same answer."""
    row = workers.by_name(tx.conn, body.name) or workers.insert(tx, **body.model_dump())
    lease_ms, heartbeat_ms = _times(ctx)
    return Registered(worker_id=row.id, lease_ms=lease_ms, heartbeat_ms=heartbeat_ms)


@dataclass(frozen=True)
class Claimed:
    """What a claim got."""

    grant: Grant | None
    may_wait: bool  # for a trial to come; a retry may not: it is given nothing new


def first_claim(tx: Tx, ctx: Context, worker_id: int, body: ClaimBody) -> Claimed:
    """Returns a trial under a claim seen for the first time, or what a retry was given before.

    Raises:
        NotFound: the worker is unknown.
        StaleClaim: a newer claim of this worker was seen.
    """
    if workers.number_claim(tx, worker_id, body.seq):
        return Claimed(_grant_any(tx, ctx, worker_id, body), may_wait=True)
    return Claimed(_granted_before(tx, ctx, worker_id, body), may_wait=False)


def waiting_claim(tx: Tx, ctx: Context, worker_id: int, body: ClaimBody) -> Grant | None:
    """Returns a trial for a claim that was numbered before and waits; see `first_claim`."""
    granted = _granted_before(tx, ctx, worker_id, body)
    if granted is not None:
        return granted
    return _grant_any(tx, ctx, worker_id, body)


def hash_token(token: str) -> str:
    """Returns what is stored of a lease token."""
    return hashlib.sha256(token.encode()).hexdigest()


def _granted_before(tx: Tx, ctx: Context, worker_id: int, body: ClaimBody) -> Grant | None:
    worker = workers.hold(tx, worker_id)
    if worker is None:
        raise NotFound(f"there is no worker {worker_id}; register again")
    if body.seq < worker.claim_seq:
        raise StaleClaim(f"claim {body.seq} is older than claim {worker.claim_seq}")
    attempt = attempts.granted_under(tx.conn, worker_id, body.seq)
    if attempt is None or attempt.lease_hash != hash_token(body.lease_token):
        return None
    trial = trials.get(tx.conn, attempt.trial_id)
    assert trial is not None  # noqa: S101 - a foreign key
    return _grant_body(tx, ctx, studies.lock(tx, trial.study_id), trial)


def _grant_any(tx: Tx, ctx: Context, worker_id: int, body: ClaimBody) -> Grant | None:
    """Returns a trial of the first study that has one; studies with less running come first."""
    if body.protocol != PROTOCOL:
        return None
    running = studies.in_state(tx.conn, StudyState.RUNNING)
    held = {row.id: studies.counts(tx.conn, row.id).get(TrialState.RUNNING, 0) for row in running}
    for row in sorted(running, key=lambda row: (held[row.id], row.id)):
        study = studies.lock(tx, row.id)
        if study.state != StudyState.RUNNING:
            continue
        if not BoundStorage(tx.conn).has_study(study.name, study.optuna_id):
            lives.begin_ending(tx, ctx, study, "deleted")
            continue
        trial = trials.claimable(tx, study.id, ATTEMPTS - 1) or _suggest(tx, ctx, study)
        if trial is not None:
            return _grant(tx, ctx, study, trial, worker_id, body)
    return None


def _suggest(tx: Tx, ctx: Context, study: Row) -> Row | None:
    """Returns a new WAITING trial with the sampler's next configuration, while the budget lasts."""
    spec = ctx.studies.spec(study)
    full = lives.slots(studies.counts(tx.conn, study.id)) >= spec.budget.trials
    if full or study.reason == lives.EXHAUSTED:
        return None
    for _ in range(MISFITS):
        trial = create_trial(tx, ctx, studies.lock(tx, study.id), None)
        if trial is None:
            lives.exhaust(tx, ctx, study)
            return None
        misfit = _misfit(spec, trial)
        if misfit is None:
            return trial
        move(tx, trial, TrialState.CANCELLED, f"does not fit together: {misfit}")
    return None


def _misfit(spec: StudySpec, trial: Row) -> str | None:
    """Returns why the values of a trial make no recipe; a study is checked at its extremes only."""
    try:
        spec.recipe(trial.params, trial.number)
    except InvalidInput as error:
        return str(error)
    return None


def create_trial(tx: Tx, ctx: Context, study: Row, fixed: dict[str, Any] | None) -> Row | None:
    """Returns a new WAITING trial, in our rows and Optuna's, or None where no point is left.

    `fixed` are values that a person chose; the others are sampled.
    """
    spec = ctx.studies.spec(study)
    storage = BoundStorage(tx.conn)
    number = storage.next_number(study.optuna_id)
    suggestion = ctx.studies.mirror(tx, study).ask(number, fixed)
    if suggestion is None:
        return None
    optuna_id = storage.create_trial(study.optuna_id, suggestion.trial)
    revision = studies.update(tx, study.id).revision
    studies.audit(tx, study.id, "waiting", number, params=suggestion.params)
    return trials.insert(
        tx,
        study_id=study.id,
        number=number,
        optuna_id=optuna_id,
        state=TrialState.WAITING,
        params=suggestion.params,
        max_step=spec.train.steps,
        revision=revision,
    )


def _grant(tx: Tx, ctx: Context, study: Row, trial: Row, worker_id: int, body: ClaimBody) -> Grant:
    """Ends the attempt that is stolen, if any, and begins the next from the newest checkpoint."""
    stolen = trial.state == TrialState.RUNNING
    if stolen:
        attempts.end(tx, trial.id, trial.attempt, outcome=Outcome.LOST, reason="the lease was over")
    start = attempts.newest_checkpoint(tx.conn, trial.id)
    step = 0 if start is None else start.step
    reports.supersede(tx, trial.id, step)
    lease_hash = hash_token(body.lease_token)
    trial = move(
        tx,
        trial,
        TrialState.RUNNING,
        attempt=trial.attempt + 1,
        failures=trial.failures + stolen,
        lease_hash=lease_hash,
        lease_until_t=tx.t + ctx.lease.lease,
        progress_step=step,
        progress_t=tx.t,
        worker_id=worker_id,
        started_at=trial.started_at or tx.now,
        **visible_end(tx, trial.id),
    )
    attempts.begin(
        tx,
        trial_id=trial.id,
        attempt=trial.attempt,
        worker_id=worker_id,
        claim_seq=body.seq,
        lease_hash=lease_hash,
        start_step=step,
    )
    return _grant_body(tx, ctx, study, trial)


def visible_end(tx: Tx, trial_id: int) -> dict[str, Any]:
    """Returns the trial's `step` and `value` as its last visible report gives them."""
    last = reports.last_visible(tx.conn, trial_id)
    return {"step": 0, "value": None} if last is None else {"step": last.step, "value": last.value}


def _grant_body(tx: Tx, ctx: Context, study: Row, trial: Row) -> Grant:
    start = attempts.newest_checkpoint(tx.conn, trial.id)
    lease_ms, heartbeat_ms = _times(ctx)
    return Grant(
        trial_id=trial.id,
        study=study.name,
        number=trial.number,
        attempt=trial.attempt,
        lease_ms=lease_ms,
        heartbeat_ms=heartbeat_ms,
        recipe=ctx.studies.spec(study).recipe(trial.params, trial.number),
        resume=start and Resume(step=start.step, sha256=start.sha256, bytes=start.bytes),
        max_step=trial.max_step,
    )


def _times(ctx: Context) -> tuple[int, int]:
    return round(ctx.lease.lease * 1_000), round(ctx.lease.heartbeat * 1_000)
