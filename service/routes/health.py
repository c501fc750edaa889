"""Probes, metrics and the OpenAPI document."""

from __future__ import annotations

from collections import Counter
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse

from service import problems
from service.routes.parts import Lmtune
from service.store import blobs
from service.store.workers import read_clock
from studies.errors import Unavailable

router = APIRouter(tags=["health"])


@router.get("/healthz")
def healthz() -> dict[str, str]:
    """Returns ok while the process serves."""
    return {"status": "ok"}


@router.get("/readyz")
def readyz(lmtune: Lmtune) -> dict[str, str]:
    """Returns ok when the database answers and its newest blob is in our folder; else 503."""
    lmtune.ctx.database.read(read_clock)
    newest = lmtune.ctx.database.read(blobs.newest)
    if newest is not None and not lmtune.blobs.path(newest).exists():
        raise Unavailable(
            "the newest blob is not in this server's folder: all servers of a database need the"
            " same one (LMTUNE_BLOBS)"
        )
    return {"status": "ok"}


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(lmtune: Lmtune) -> str:
    """Returns gauges in Prometheus' text form."""
    lines = ["# HELP lmtune_trials Trials by study and state.", "# TYPE lmtune_trials gauge"]
    lines += [
        f'lmtune_trials{{study="{study}",state="{state}"}} {count}'
        for (study, state), count in lmtune.reading.counts().items()
    ]
    lines += ["# HELP lmtune_workers Workers by state.", "# TYPE lmtune_workers gauge"]
    workers: Counter[str] = Counter()
    for count in lmtune.reading.worker_counts():
        workers[count.state] += count.workers
    lines += [f'lmtune_workers{{state="{s}"}} {n}' for s, n in sorted(workers.items())]
    return "\n".join(lines) + "\n"


@router.get("/openapi.json", include_in_schema=False)
def openapi(request: Request) -> dict[str, Any]:
    """Returns the OpenAPI document."""
    document: dict[str, Any] = request.app.openapi()
    for path in document["paths"].values():
        for operation in path.values():
            _name_problems(operation["responses"]["default"])
    return document


def _name_problems(default: dict[str, Any]) -> None:
    """Gives the answer that stands for every error its own media type; FastAPI knows one only."""
    default["content"] = {problems.MEDIA_TYPE: next(iter(default["content"].values()))}
