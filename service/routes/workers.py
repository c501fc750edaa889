"""The worker protocol. Async: each call hands a command to the writer and awaits it."""

from __future__ import annotations

import time
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import PlainTextResponse

from service.dispatch import claim as claims
from service.dispatch import plain
from service.dispatch import report as reporting
from service.dispatch.reading import LISTED
from service.dispatch.sweep import worker_gone
from service.launcher.by_hand import worker_command
from service.routes.parts import Lmtune, Parts
from service.store.database import Row
from service.store.fence import AttemptKey
from studies import wire
from studies.errors import NotFound, TooLarge
from studies.fleet import WorkerCount

router = APIRouter(prefix="/api/v1", tags=["workers"])
TURN_SECONDS: Final = 5.0  # for a claim's turn to ask a sampler, or as long as it may wait
Limit = Annotated[int, Query(ge=1, le=1_000)]
LOG_BYTES: Final = 65_536  # of one call


async def attempt_key(
    trial_id: int, attempt: int, lease: Annotated[str, Header(alias=wire.LEASE_HEADER)]
) -> AttemptKey:
    """Returns who writes: the attempt and the hash of its lease token."""
    return AttemptKey(trial_id, attempt, claims.hash_token(lease))


Key = Annotated[AttemptKey, Depends(attempt_key)]


@router.get("/workers")
def list_workers(
    lmtune: Lmtune, name: str | None = None, limit: Limit = LISTED
) -> list[wire.WorkerView]:
    """Returns the workers, those heard of last first, or the one of a name."""
    return lmtune.reading.workers(limit, name=name, measured=name is None)


@router.get("/worker-counts")
def count_workers(lmtune: Lmtune) -> list[WorkerCount]:
    """Returns how many workers there are, by device and state."""
    return lmtune.reading.worker_counts()


@router.get("/workers/{worker_id}/log", response_class=PlainTextResponse)
def show_worker_log(worker_id: int, lmtune: Lmtune) -> str:
    """Returns the end of the log of a worker that this server's launcher started."""
    row = lmtune.reading.worker(worker_id)
    text = row and lmtune.launcher.log(row.name)
    if text is None:
        raise NotFound(f"this server has no log of a worker {worker_id}; it did not start it")
    return text


@router.get("/worker-command")
def show_worker_command(request: Request, lmtune: Lmtune) -> wire.WorkerCommand:
    """Returns the line that starts a worker on another machine."""
    return worker_command(lmtune.public_url or str(request.base_url).rstrip("/"))


@router.post("/workers", status_code=201)
async def register(body: wire.RegisterBody, lmtune: Lmtune) -> wire.Registered:
    """Makes a worker known; the same registration again gets the same answer."""
    return await lmtune.awrite(lambda tx: claims.register(tx, lmtune.ctx, body))


@router.post("/workers/{worker_id}/drain", status_code=204)
def drain_worker(worker_id: int, lmtune: Lmtune) -> None:
    """Gives a worker no new trial; the one that it has goes on to its end."""
    lmtune.write(lambda tx: claims.drain(tx, lmtune.ctx, worker_id, True))


@router.post("/workers/{worker_id}/readmit", status_code=204)
def readmit_worker(worker_id: int, lmtune: Lmtune) -> None:
    """Gives a drained worker new trials again."""
    lmtune.write(lambda tx: claims.drain(tx, lmtune.ctx, worker_id, False))


@router.delete("/workers/{worker_id}", status_code=204)
async def goodbye(worker_id: int, lmtune: Lmtune) -> None:
    """A worker ends and holds no trial."""
    await lmtune.awrite(lambda tx: worker_gone(tx, worker_id))
    lmtune.bell.answered(worker_id)


@router.post(
    "/workers/{worker_id}/claim",
    response_model=wire.Grant,
    responses={204: {"description": "nothing to do now; ask again after Retry-After seconds"}},
)
async def claim(
    worker_id: int, body: wire.ClaimBody, request: Request, lmtune: Lmtune
) -> wire.Grant | Response:
    """Grants a trial, waiting up to `wait_ms` for one."""
    ctx = lmtune.ctx
    deadline = time.monotonic() + body.wait_ms / 1_000
    claimed = await lmtune.awrite(lambda tx: claims.first_claim(tx, ctx, worker_id, body))
    while claimed.grant is None and claimed.open:
        if claimed.ask is not None:
            seconds = max(deadline - time.monotonic(), TURN_SECONDS)
            turn = _suggested(lmtune, worker_id, body, claimed.ask, seconds)
            claimed = await turn or claims.Claimed()
        elif await _may_wait(lmtune, request, worker_id, deadline):
            claimed = await lmtune.awrite(lambda tx: claims.waiting_claim(tx, ctx, worker_id, body))
        else:
            grant = await lmtune.awrite(lambda tx: claims.close_claim(tx, ctx, worker_id, body))
            claimed = claims.Claimed(grant, open=False)
    if claimed.grant is not None:
        lmtune.bell.granted(worker_id)
    return claimed.grant or Response(status_code=204, headers={"Retry-After": "1"})


async def _suggested(
    lmtune: Parts, worker_id: int, body: wire.ClaimBody, study: Row, seconds: float
) -> claims.Claimed | None:
    """Asks the study's sampler for the claim; None: its turn did not come in time."""
    return await lmtune.in_turn(
        study.id, seconds, lambda: claims.suggested_claim(lmtune.ctx, worker_id, body, study)
    )


async def _may_wait(lmtune: Parts, request: Request, worker_id: int, deadline: float) -> bool:
    """Waits for the bell; False when time is up, the caller has gone or the server goes down."""
    bell, left = lmtune.bell, deadline - time.monotonic()
    if left <= 0 or bell.closing:
        return False
    await bell.wait(worker_id, left)
    if bell.closing:
        return False
    gone = await request.is_disconnected()
    if gone:
        bell.pass_on()
    return not gone


@router.post("/trials/{trial_id}/attempts/{attempt}/heartbeat")
async def heartbeat(key: Key, body: wire.HeartbeatBody, lmtune: Lmtune) -> wire.DecisionView:
    """Renews the lease; answers what is wanted of the trial."""
    many = plain.beating(lmtune.ctx, key, body)
    decision = await lmtune.awrite(lambda tx: reporting.heartbeat(tx, lmtune.ctx, key, body), many)
    return wire.DecisionView(decision=decision)


@router.post("/trials/{trial_id}/attempts/{attempt}/reports")
async def report(key: Key, body: wire.ReportBody, lmtune: Lmtune) -> wire.ReportAnswer:
    """Stores reports, each once, and answers what to do next."""
    many = plain.reporting(lmtune.ctx, key, body)
    return await lmtune.awrite(lambda tx: reporting.record_report(tx, lmtune.ctx, key, body), many)


@router.post("/trials/{trial_id}/attempts/{attempt}/checkpoints")
async def checkpoint(key: Key, body: wire.CheckpointBody, lmtune: Lmtune) -> wire.DecisionView:
    """Commits an uploaded blob as the place to resume from."""
    decision = await lmtune.awrite(lambda tx: reporting.checkpoint(tx, lmtune.ctx, key, body))
    return wire.DecisionView(decision=decision)


@router.post("/trials/{trial_id}/attempts/{attempt}/resume")
async def resume(key: Key, body: wire.ResumeBody, lmtune: Lmtune) -> wire.DecisionView:
    """Records where the attempt really starts, when its checkpoint cannot be used."""
    decision = await lmtune.awrite(lambda tx: reporting.resume(tx, lmtune.ctx, key, body))
    return wire.DecisionView(decision=decision)


@router.post("/trials/{trial_id}/attempts/{attempt}/finish")
async def finish(key: Key, body: wire.FinishBody, lmtune: Lmtune) -> wire.FinishAnswer:
    """Ends the attempt; the same finish again gets the same answer."""
    return await lmtune.awrite(lambda tx: reporting.finish(tx, lmtune.ctx, key, body))


_TEXT: Final = {"content": {"text/plain": {"schema": {"type": "string"}}}, "required": True}


@router.post(
    "/trials/{trial_id}/attempts/{attempt}/log",
    status_code=204,
    openapi_extra={"requestBody": _TEXT},
)
async def log(key: Key, request: Request, lmtune: Lmtune) -> None:
    """Appends to the attempt's log, of which the last 1 MiB is kept."""
    said = await request.body()
    if len(said) > LOG_BYTES:
        raise TooLarge(f"a part of a log may have {LOG_BYTES} bytes")
    text = said.decode(errors="replace")  # whatever a program printed
    await lmtune.awrite(lambda tx: reporting.log(tx, lmtune.ctx, key, text))
