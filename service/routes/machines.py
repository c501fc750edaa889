"""The page of the workers: which there are, what runs where, and how another one is started."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from service.launcher.by_hand import worker_command
from service.routes.dashboard import page
from service.routes.parts import Lmtune

router = APIRouter(include_in_schema=False)


@router.get("/workers")
def list_workers(request: Request, lmtune: Lmtune) -> Response:
    """Returns the page of the workers."""
    workers = lmtune.reading.workers()
    present = [worker for worker in workers if worker.state != "gone"]
    context = {
        "workers": present,
        "busy": sum(worker.state == "busy" for worker in present),
        "gone": len(workers) - len(present),
        "command": worker_command(lmtune.public_url or str(request.base_url).rstrip("/")),
    }
    return page(request, "workers.html", context)
