"""The pages of the workers: what runs where, what each printed, and how another one is started."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from service.launcher.by_hand import worker_command
from service.routes.dashboard import not_found, page
from service.routes.parts import Lmtune
from studies.errors import NotFound

router = APIRouter(include_in_schema=False)


@router.get("/workers")
def list_workers(request: Request, lmtune: Lmtune) -> Response:
    """Returns the page of the workers."""
    workers = lmtune.reading.workers(measured=True)
    context = {
        "workers": [worker for worker in workers if worker.state != "gone"],
        "counts": lmtune.reading.worker_counts(),
        "command": worker_command(lmtune.public_url or str(request.base_url).rstrip("/")),
    }
    return page(request, "workers.html", context)


@router.get("/workers/{worker_id}/log")
def show_worker_log(worker_id: int, request: Request, lmtune: Lmtune) -> Response:
    """Returns the page with the end of a worker's log, or with where that is."""
    worker = lmtune.reading.worker(worker_id)
    if worker is None:
        return not_found(request, NotFound(f"there is no worker {worker_id}"))
    context = {"worker": worker, "log": lmtune.launcher.log(worker.name)}
    return page(request, "worker.html", context)
