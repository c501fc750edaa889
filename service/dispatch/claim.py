"""A worker asks for a trial: one released, expired or promotable first, else a new suggestion."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from service.dispatch import studies as lives
from service.dispatch.context import Context
from service.dispatch.promote import promote
from service.dispatch.settle import ATTEMPTS, move
from service.dispatch.suggest import Offer, asked, blind_offer, has_room, take
from service.store import attempts, reports, studies, trials, workers
from service.store.database import Connection, Row, Tx
from service.store.optuna_rows import BoundStorage
from studies.errors import Incompatible, NotFound, StaleClaim
from studies.trial import Outcome, StudyState, TrialState
from studies.wire import SPOKEN, ClaimBody, Grant, RegisterBody, Registered, Resume


def register(tx: Tx, ctx: Context, body: RegisterBody) -> Registered:
    """Makes a worker known; the same registration again gets the same answer.

    Raises:
        Incompatible: its protocol is not spoken here.
    """
    _check_protocol(body.protocol)
    row = workers.by_name(tx.conn, body.name) or workers.insert(tx, **body.model_dump())
    lease_ms, heartbeat_ms = _times(ctx)
    return Registered(worker_id=row.id, lease_ms=lease_ms, heartbeat_ms=heartbeat_ms)


@dataclass(frozen=True)
class Claimed:
    """What a claim got, or how it goes on."""

    grant: Grant | None = None
    ask: Row | None = None  # nothing is there to grant, but this study's sampler has room
    open: bool = True  # it may wait for a trial to come; one that was answered may not


def first_claim(tx: Tx, ctx: Context, worker_id: int, body: ClaimBody) -> Claimed:
    """Returns a trial for a claim that has just arrived, or what it was answered before.

    A claim is open until it is granted a trial or closed. The same claim sent again joins it
    while it is open, and gets the same answer afterwards.

    Raises:
        NotFound: the worker is unknown.
        StaleClaim: a newer claim of this worker was seen.
        Incompatible: its protocol is not spoken here.
    """
    _check_protocol(body.protocol)
    said = body.model_dump(include={"protocol", "code_hash", "resources"})
    if workers.number_claim(tx, worker_id, body.seq, **said):
        return _grant_any(tx, ctx, worker_id, body, None)
    return waiting_claim(tx, ctx, worker_id, body)


def waiting_claim(
    tx: Tx, ctx: Context, worker_id: int, body: ClaimBody, offer: Offer | None = None
) -> Claimed:
    """Returns a trial for a claim that was numbered before; see `first_claim`."""
    answered = _answered(tx, ctx, worker_id, body)
    return answered or _grant_any(tx, ctx, worker_id, body, offer)


def close_claim(tx: Tx, ctx: Context, worker_id: int, body: ClaimBody) -> Grant | None:
    """Ends a claim with nothing, for good; or returns what it was granted meanwhile."""
    answered = _answered(tx, ctx, worker_id, body)
    workers.close_claim(tx, worker_id)
    return answered.grant if answered else None


def suggested_claim(ctx: Context, worker_id: int, body: ClaimBody, study: Row) -> Claimed:
    """Returns a trial for a waiting claim once this study's sampler was asked for one.

    No transaction: it asks between two. By the time that it is called, another study may be
    the one to ask.
    """

    def use(offer: Offer) -> Claimed | None:
        claimed = ctx.database.write(lambda tx: waiting_claim(tx, ctx, worker_id, body, offer))
        again = claimed.ask is not None and claimed.ask.id == study.id
        return None if again else claimed

    next_study = ctx.database.read(lambda conn: _with_room(conn, ctx, worker_id))
    if next_study is not None and next_study.id != study.id:
        return Claimed(ask=next_study)
    return asked(ctx, study, use) or Claimed()


def drain(tx: Tx, ctx: Context, worker_id: int, draining: bool) -> None:
    """A worker gets no new trial, or some again; the one that it has goes on.

    Raises:
        NotFound: the worker is unknown.
    """
    if workers.drain(tx, worker_id, draining) is None:
        raise NotFound(f"there is no worker {worker_id}")
    tx.on_commit(ctx.wake)


def hash_token(token: str) -> str:
    """Returns what is stored of a lease token."""
    return hashlib.sha256(token.encode()).hexdigest()


def _answered(tx: Tx, ctx: Context, worker_id: int, body: ClaimBody) -> Claimed | None:
    """Returns the answer that the claim was given before; None while it is open."""
    worker = workers.hold(tx, worker_id)
    if worker is None:
        raise NotFound(f"there is no worker {worker_id}; register again")
    if body.seq < worker.claim_seq:
        raise StaleClaim(f"claim {body.seq} is older than claim {worker.claim_seq}")
    attempt = attempts.granted_under(tx.conn, worker_id, body.seq)
    if attempt is None or attempt.lease_hash != hash_token(body.lease_token):
        return None if worker.claim_open else Claimed(open=False)
    trial = trials.get(tx.conn, attempt.trial_id)
    assert trial is not None  # noqa: S101 - a foreign key
    return Claimed(_grant_body(tx, ctx, studies.lock(tx, trial.study_id), trial))


def _check_protocol(spoken: int) -> None:
    if spoken not in SPOKEN:
        older = "worker" if spoken < SPOKEN[0] else "server"
        known = " and ".join(map(str, SPOKEN))
        which = f"the worker speaks protocol {spoken}, this server {known}"
        raise Incompatible(f"{which}; upgrade lmtune on the {older}")


def _open_to(conn: Connection, ctx: Context, worker_id: int) -> list[Row]:
    """Returns the RUNNING studies that the worker may be offered, in the order to look at them."""
    worker = workers.get(conn, worker_id)
    if worker is None or worker.draining:
        return []
    refused = attempts.studies_refused_by(conn, worker_id)
    rows = [row for row in studies.fewest_running_first(conn) if row.id not in refused]
    has = worker.resources or {}
    return [row for row in rows if ctx.studies.spec(row).lacking(has) is None]


def _with_room(conn: Connection, ctx: Context, worker_id: int) -> Row | None:
    rows = _open_to(conn, ctx, worker_id)
    return next((row for row in rows if has_room(conn, ctx, row)), None)


def _grant_any(
    tx: Tx, ctx: Context, worker_id: int, body: ClaimBody, offer: Offer | None
) -> Claimed:
    """Returns a trial of the first study that has one; studies with less running come first.

    With an offer, its study does.
    """
    rows = _open_to(tx.conn, ctx, worker_id)
    for row in sorted(rows, key=lambda row: offer is None or row.id != offer.study_id):
        study = studies.lock(tx, row.id)
        if study.state != StudyState.RUNNING:
            continue
        if not BoundStorage(tx.conn).has_study(study.name, study.optuna_id):
            lives.begin_ending(tx, ctx, study, "deleted")
            continue
        full = lives.full(tx.conn, ctx, study)
        trial = (
            trials.claimable(tx, study.id, ATTEMPTS - 1, waiting=not full)
            or (None if full else promote(tx, ctx, study))
            or _new_trial(tx, ctx, study, offer)
        )
        if trial is not None:
            return Claimed(_grant(tx, ctx, study, trial, worker_id, body))
        if has_room(tx.conn, ctx, studies.get(tx.conn, study.id)):
            return Claimed(ask=study)
    return Claimed()


def _new_trial(tx: Tx, ctx: Context, study: Row, offer: Offer | None) -> Row | None:
    if not has_room(tx.conn, ctx, study):
        return None
    if offer is None or offer.study_id != study.id:
        offer = blind_offer(tx, ctx, study)
    return take(tx, ctx, study, offer) if offer else None


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
        lease_until_t=tx.t + ctx.lease.granted,
        progress_step=step,
        progress_t=tx.t,
        worker_id=worker_id,
        started_at=trial.started_at or tx.now,
        **visible_end(tx, trial.id),
    )
    workers.close_claim(tx, worker_id)
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
    older = start and attempts.newest_checkpoint(tx.conn, trial.id, below=start.step)
    lease_ms, heartbeat_ms = _times(ctx)
    ctx.studies.learn(tx, trial.id, study)  # its reports come next
    return Grant(
        trial_id=trial.id,
        study=study.name,
        number=trial.number,
        attempt=trial.attempt,
        lease_ms=lease_ms,
        heartbeat_ms=heartbeat_ms,
        recipe=ctx.studies.spec(study).recipe(trial.params, trial.number),
        resume=start and _resume(start),
        older=older and _resume(older),
        max_step=trial.max_step,
    )


def _resume(pointer: Row) -> Resume:
    return Resume(**{name: getattr(pointer, name) for name in Resume.model_fields})


def _times(ctx: Context) -> tuple[int, int]:
    return round(ctx.lease.lease * 1_000), round(ctx.lease.heartbeat * 1_000)
