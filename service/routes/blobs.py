"""Uploads and downloads by hash: texts, for people, and checkpoints, for workers."""

from __future__ import annotations

from typing import Annotated, Literal

from anyio import to_thread
from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import FileResponse

from service.dispatch.views import data_view
from service.routes.parts import Lmtune, Parts
from service.store import blobs
from studies import wire
from studies.errors import NotFound, Unavailable
from studies.recipe import SHA256

router = APIRouter(prefix="/api/v1", tags=["data"])
Sha256 = Annotated[str, Path(pattern=SHA256, description="SHA-256 of the content, in hex")]


@router.get("/data")
def list_data(lmtune: Lmtune) -> list[wire.DataView]:
    """Returns the uploaded texts, newest first."""
    return lmtune.reading.data()


@router.put("/data/{sha256}", status_code=201)
async def put_data(
    sha256: Sha256,
    request: Request,
    lmtune: Lmtune,
    name: Annotated[str, Query(max_length=255)] = "",
) -> wire.DataView:
    """Uploads a text under its hash; a study names it by that."""
    await _receive(lmtune, request, sha256, "data", name)
    found = await lmtune.awrite(lambda tx: blobs.get(tx.conn, sha256))
    assert found is not None  # noqa: S101 - it was written just now
    return data_view(found)


@router.get("/data/{sha256}", response_class=FileResponse)
def get_data(sha256: Sha256, lmtune: Lmtune) -> FileResponse:
    """Downloads a text."""
    return send_file(lmtune, sha256, "data")


@router.put("/blobs/{sha256}", status_code=204)
async def put_blob(sha256: Sha256, request: Request, lmtune: Lmtune) -> None:
    """Uploads a checkpoint under its hash; POST .../checkpoints then points at it."""
    await _receive(lmtune, request, sha256, "checkpoint", "")


@router.get("/blobs/{sha256}", response_class=FileResponse)
def get_blob(sha256: Sha256, lmtune: Lmtune) -> FileResponse:
    """Downloads a checkpoint."""
    return send_file(lmtune, sha256, "checkpoint")


async def _receive(
    lmtune: Parts, request: Request, sha256: str, kind: Literal["data", "checkpoint"], name: str
) -> None:
    """Stores the body, durable before its row is."""
    room = None
    if lmtune.max_blobs_bytes:
        stored = await to_thread.run_sync(lambda: lmtune.ctx.database.read(blobs.total))
        room = lmtune.max_blobs_bytes - stored
    size = await lmtune.blobs.receive(sha256, request.stream(), lmtune.max_blob_bytes, room)
    await lmtune.awrite(lambda tx: blobs.add(tx, sha256=sha256, kind=kind, name=name, bytes=size))
    if not lmtune.blobs.path(sha256).exists():  # an unused one of this hash was just collected
        raise Unavailable("upload it again")


def send_file(
    lmtune: Parts, sha256: str, kind: Literal["data", "checkpoint"], filename: str | None = None
) -> FileResponse:
    """Returns a blob as a download; raises NotFound."""
    row = lmtune.ctx.database.read(lambda conn: blobs.get(conn, sha256))
    path = lmtune.blobs.path(sha256)
    if row is None or row.kind != kind or not path.exists():
        raise NotFound(f"there is no {kind} of hash {sha256}")
    return FileResponse(path, media_type="application/octet-stream", filename=filename)
