"""Who calls, and whether they may: one gate before every route, deny by default.

The gate stands before the routes, not in them: nothing of a request is read, and no path is looked
up, before it has let the caller in. A caller shows a token (`Authorization: Bearer lmt_...`) or, a
browser, a session cookie that a login link or a pasted token gave it. Tokens are 256 random bits,
stored as SHA-256. A request with a cookie that changes something must come from our own pages.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
import time
from functools import lru_cache
from pathlib import Path
from typing import Final

from anyio import to_thread
from fastapi import Request
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from service import problems
from service.store import tokens
from service.store.database import Database
from studies.errors import Forbidden, LmtuneError, StartupError, Unauthorized

COOKIE: Final = "lmtune_session"
SESSION_SECONDS: Final = 30 * 86_400
LOGIN_SECONDS: Final = 86_400  # how long a login link may be used, once
# Everything else needs a token. Static files hold no secret.
ALLOWED: Final = frozenset({"/login", "/static", "/favicon.ico"})
PROBES: Final = frozenset({"/healthz", "/readyz"})  # asked by address; they say only "up"
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST: Final = re.compile(r"([A-Za-z0-9.-]+)(?::[0-9]{1,5})?")
_REMEMBERED: Final = 2.0  # how long a good token is not looked up again [s]


def new_token(prefix: str = "lmt") -> str:
    """Returns a new secret of 256 bits."""
    return f"{prefix}_{secrets.token_urlsafe(32)}"


def hashed(token: str) -> str:
    """Returns what is stored of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def home_token(home: Path) -> str:
    """Returns the token in the home folder, made at the first start, readable by its owner only."""
    path = home / "token"
    try:
        if not path.exists():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(new_token() + "\n")
        token = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise StartupError(f"cannot keep the token in {path}: {error.strerror}") from None
    if not token:  # the machine stopped between the two; nothing is no secret
        raise StartupError(f"the token in {path} is empty; remove the file, and one is made")
    return token


class Gate:
    """Knows the tokens, and which paths need none."""

    def __init__(self, database: Database, hosts: frozenset[str] | None) -> None:
        """`hosts` are the names it may be called by; None: any (behind a proxy)."""
        self._database = database
        self._hosts = hosts
        self._good: dict[tuple[str, str], float] = {}  # kind, hash -> look again at [monotonic s]
        self._asked: dict[tuple[str, str], asyncio.Task[None]] = {}  # being looked up

    async def __call__(self, connection: HTTPConnection) -> None:
        """Lets the request pass, or raises Unauthorized or Forbidden."""
        path = connection.scope["path"]
        if path in PROBES:
            return
        self._check_host(connection)
        if path in ALLOWED or path.startswith("/static/"):
            return
        header = connection.headers.get("authorization", "")
        if header.lower().startswith("bearer "):
            await self._check(header[7:].strip(), "token")
            return
        cookie = connection.cookies.get(COOKIE)
        if cookie is None:
            raise Unauthorized("send `Authorization: Bearer TOKEN`, or sign in at /login")
        _check_same_site(connection)
        await self._check(cookie, "session")

    def forget(self, token: str) -> None:
        """Looks a session up again at its next use."""
        self._good.pop(("session", hashed(token)), None)

    async def _check(self, token: str, kind: str) -> None:
        key = kind, hashed(token)
        if self._good.get(key, 0.0) > time.monotonic():
            return
        asked = self._asked.get(key)
        if asked is None:  # of many requests at once, the first asks the database for all
            asked = self._asked[key] = asyncio.create_task(self._look_up(key))
            asked.add_done_callback(lambda _: self._asked.pop(key))
        await asyncio.shield(asked)

    async def _look_up(self, key: tuple[str, str]) -> None:
        kind, token_hash = key
        now = time.time()
        row = await to_thread.run_sync(
            lambda: self._database.read(lambda conn: tokens.get(conn, token_hash, now))
        )
        if row is None or row.kind != kind:
            raise Unauthorized("this token is not known here (or has expired)")
        self._good[key] = time.monotonic() + _REMEMBERED

    def _check_host(self, connection: HTTPConnection) -> None:
        """Raises Forbidden for a foreign Host header: DNS that was made to point at us."""
        if self._hosts is None:
            return
        host = _named(connection.headers.get("host")) or connection.url.hostname or ""
        if host not in self._hosts:
            raise Forbidden(f"{host!r} is not a name of this server; see LMTUNE_ALLOWED_HOSTS")


@lru_cache(maxsize=256)  # every request asks, and most say the same
def _named(host: str | None) -> str | None:
    """Returns the name in a Host header without its port; None: it has none that is plain."""
    plain = _HOST.fullmatch(host or "")
    return plain and plain[1].lower()


def _check_same_site(connection: HTTPConnection) -> None:
    """Raises Forbidden for a change asked for by another site's page with our cookie."""
    if connection.scope["method"] in _SAFE:
        return
    site = connection.headers.get("sec-fetch-site")
    origin = connection.headers.get("origin")
    ours = f"{connection.url.scheme}://{connection.url.netloc}"
    if site != "same-origin" and not (site is None and origin == ours):
        raise Forbidden("this request comes from another site")


class Guard:
    """Asks the gate about every request before the app sees it."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app, self._gate = app, gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, or answers it with what the gate raised."""
        if scope["type"] == "http":
            try:
                await self._gate(HTTPConnection(scope))
            except LmtuneError as error:
                await problems.refuse(Request(scope), error)(scope, receive, send)
                return
        await self._app(scope, receive, send)
