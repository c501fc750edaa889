"""The dashboard's own files and plotly.js: no CDN, no path (docs/decisions/0023).

An address names the version of all of them, so a browser keeps them until there is another.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response
from plotly.offline import get_plotlyjs, get_plotlyjs_version

import service
from studies.errors import NotFound

PLOTLY: Final = "plotly.min.js"
_FOLDER: Final = Path(service.__file__).parent / "static"
_VENDOR: Final = Path(service.__file__).parent / "vendor"
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_SMALL: Final = 1_000  # bytes under which gzip gains nothing
_KEPT: Final = "public, max-age=31536000, immutable"  # a year

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class Asset:
    """A file as it is sent."""

    content: bytes
    zipped: bytes | None
    media_type: str
    etag: str


@router.get("/static/{version}/{name}")
def asset(version: str, name: str, request: Request) -> Response:
    """Returns a file of the dashboard; kept for a year where the version is this server's."""
    found = _asset(name) if name == PLOTLY or name in _names() else None
    if found is None:
        raise NotFound(f"there is no file {name!r}")
    headers = {
        "Cache-Control": _KEPT if version == _version() else "no-cache",
        "ETag": found.etag,
        "Vary": "Accept-Encoding",
    }
    if request.headers.get("if-none-match") == found.etag:
        return Response(status_code=304, headers=headers)
    if found.zipped and "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(found.zipped, media_type=found.media_type, headers=headers)
    return Response(found.content, media_type=found.media_type, headers=headers)


def address(name: str) -> str:
    """Returns where a page finds a file."""
    return f"/static/{_version()}/{name}"


def inlined(name: str) -> str:
    """Returns a file as an address that holds it whole, for a page that stands alone."""
    found = _asset(name)
    return f"data:{found.media_type};base64,{base64.b64encode(found.content).decode()}"


def prepare() -> None:
    """Reads and zips plotly.js, so that the first reader need not wait for it."""
    _asset(PLOTLY)


@cache
def scripts() -> list[str]:
    """Returns the names of the scripts, so that a page can ask for all of them at once."""
    return sorted(name for name in _names() if name.endswith(".js"))


@cache
def _names() -> frozenset[str]:
    return frozenset(path.name for path in _FOLDER.iterdir() if path.suffix in _TYPES)


@cache
def _version() -> str:
    tags = [_asset(name).etag for name in sorted({PLOTLY, *_names()})]
    return hashlib.sha256("".join(tags).encode()).hexdigest()[:16]


@cache
def _asset(name: str) -> Asset:
    content = _plotly() if name == PLOTLY else (_FOLDER / name).read_bytes()
    return Asset(
        content=content,
        zipped=gzip.compress(content, 6, mtime=0) if len(content) > _SMALL else None,
        media_type=_TYPES[Path(name).suffix],
        etag=f'"{hashlib.sha256(content).hexdigest()[:16]}"',
    )


def _plotly() -> bytes:
    """Returns the part of plotly.js that figures need, or all of it where the versions differ."""
    part = (_VENDOR / PLOTLY).read_bytes()
    same = f" v{get_plotlyjs_version()}\n".encode() in part[:100]
    return part if same else get_plotlyjs().encode()
