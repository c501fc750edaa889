"""Studies and trials, for people and scripts."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import FileResponse, PlainTextResponse

from service.corpora import check_corpus_of
from service.dispatch import enqueue as people
from service.dispatch import steer
from service.dispatch import studies as lives
from service.dispatch.views import trial_view
from service.routes.blobs import send_file
from service.routes.parts import Lmtune
from studies import wire
from studies.changes import ChangeBody, EventView
from studies.spec import StudySpec
from studies.trial import TrialState

router = APIRouter(prefix="/api/v1", tags=["studies"])
Limit = Annotated[int, Query(ge=1, le=1_000)]


@router.post("/studies", status_code=201)
def create_study(spec: StudySpec, lmtune: Lmtune, response: Response) -> wire.StudyView:
    """Creates a study, RUNNING at once. A text must be uploaded before (PUT /api/v1/data)."""
    check_corpus_of(spec, lmtune.blobs)
    lmtune.write(lambda tx: lives.open_study(tx, lmtune.ctx, spec))
    response.headers["Location"] = f"/api/v1/studies/{spec.name}"
    return lmtune.reading.study(spec.name)


@router.get("/studies")
def list_studies(
    lmtune: Lmtune, archived: bool = False, cursor: str | None = None, limit: Limit = 100
) -> wire.Page[wire.StudyView]:
    """Returns studies, newest first."""
    return lmtune.reading.studies(archived, cursor, limit)


@router.get("/studies/{name}")
def get_study(name: str, lmtune: Lmtune) -> wire.StudyView:
    """Returns a study with its progress and best trial."""
    return lmtune.reading.study(name)


@router.patch("/studies/{name}")
def change_study(name: str, body: ChangeBody, lmtune: Lmtune) -> wire.StudyView:
    """Changes the budget or the workers of a study that goes on, or narrows its search space.

    Trials that are there stay as they are; what lies outside the new space no longer counts for
    the sampler.
    """
    lmtune.write(lambda tx: steer.change(tx, lmtune.ctx, name, body))
    return lmtune.reading.study(name)


@router.get("/studies/{name}/history")
def get_history(
    name: str, lmtune: Lmtune, cursor: str | None = None, limit: Limit = 100
) -> wire.Page[EventView]:
    """Returns what became of a study and what people did to it, newest first."""
    return lmtune.reading.history(name, cursor, limit)


@router.get("/studies/{name}/trials")
def list_trials(
    name: str,
    lmtune: Lmtune,
    state: TrialState | None = None,
    cursor: str | None = None,
    limit: Limit = 100,
) -> wire.Page[wire.TrialView]:
    """Returns a study's trials by number, of one state or of all."""
    return lmtune.reading.trials(name, state, cursor, limit)


@router.get("/studies/{name}/trials/{number}")
def get_trial(name: str, number: int, lmtune: Lmtune) -> wire.TrialDetail:
    """Returns a trial with its curve, attempts and full recipe."""
    return lmtune.reading.trial(name, number)


@router.get(
    "/studies/{name}/trials/{number}/attempts/{attempt}/log", response_class=PlainTextResponse
)
def get_log(name: str, number: int, attempt: int, lmtune: Lmtune) -> str:
    """Returns what is kept of an attempt's log."""
    return lmtune.reading.log(name, number, attempt)


@router.get("/studies/{name}/trials/{number}/checkpoint", response_class=FileResponse)
def get_checkpoint(name: str, number: int, lmtune: Lmtune) -> FileResponse:
    """Downloads a trial's checkpoint (safetensors): of a COMPLETE one, the state that counts."""
    step, sha256 = lmtune.reading.checkpoint(name, number)
    return send_file(lmtune, sha256, "checkpoint", f"{name}-{number}-{step}.safetensors")


@router.post("/studies/{name}/trials", status_code=201)
def enqueue_trial(name: str, body: wire.EnqueueBody, lmtune: Lmtune) -> wire.TrialView:
    """Adds a configuration that is tried next; searched knobs left out are sampled."""
    row = people.enqueue(lmtune.ctx, name, body.params)
    return trial_view(name, row)


@router.post("/studies/{name}/trials/{number}/cancel")
def cancel_trial(name: str, number: int, lmtune: Lmtune) -> wire.TrialView:
    """Cancels a trial; a RUNNING one ends as soon as its worker hears of it."""
    row = lmtune.write(lambda tx: people.cancel(tx, lmtune.ctx, name, number))
    return trial_view(name, row)


@router.get("/studies/{name}/best")
def get_best(name: str, lmtune: Lmtune) -> wire.TrialDetail:
    """Returns the best complete trial."""
    return lmtune.reading.best(name)


@router.post("/studies/{name}/{action}")
def act_on_study(
    name: str,
    action: Literal["pause", "resume", "stop", "archive", "unarchive"],
    lmtune: Lmtune,
) -> wire.StudyView:
    """Pauses, resumes, stops, archives or unarchives a study.

    A pause lets RUNNING trials checkpoint; resuming goes on from there. A stop is for good.
    """
    ctx = lmtune.ctx
    match action:
        case "pause":
            lmtune.write(lambda tx: lives.pause(tx, name))
        case "resume":
            lmtune.write(lambda tx: lives.resume(tx, ctx, name))
        case "stop":
            lmtune.write(lambda tx: lives.stop(tx, ctx, name))
        case _:
            lmtune.write(lambda tx: lives.archive(tx, name, action == "archive"))
    return lmtune.reading.study(name)
