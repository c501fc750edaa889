"""The composition root: settings become a database, a writer, a launcher and an app."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from fastapi import FastAPI, Request
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import auth, problems
from service.blobs import BlobFolder
from service.dispatch.context import Context
from service.dispatch.reading import Reading
from service.launcher.base import Launcher, NoLauncher
from service.leases import LeaseTimes
from service.routes import (
    blobs,
    dashboard,
    drafts,
    events,
    health,
    imports,
    login,
    machines,
    report,
    studies,
    trials,
    workers,
)
from service.routes.bell import Bell
from service.routes.bodies import Cap
from service.routes.express import Express
from service.routes.parts import Parts
from service.routes.pulse import Pulse
from service.routes.warm import Warmer
from service.settings import Settings
from service.store import tokens
from service.store.database import Database
from service.store.migrate import migrate
from service.sweeper import Sweeper
from studies.errors import StartupError

_HEADERS: Final = [
    (
        b"content-security-policy",
        b"default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        b"base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
]


def open_home(home: Path) -> Path:
    """Returns the home folder, made if it was not there; raises StartupError."""
    try:
        (home / "logs").mkdir(parents=True, exist_ok=True)
        (home / ".probe").touch()
        (home / ".probe").unlink()
    except OSError as error:
        raise StartupError(
            f"cannot write the home folder {home}: {error.strerror}; set LMTUNE_HOME to another"
        ) from None
    return home.absolute()


def open_parts(
    settings: Settings, on_broken: Callable[[BaseException], None] | None = None
) -> Parts:
    """Returns the parts on a database that is up to date; raises StartupError.

    `on_broken` is called when a SQLite file or its disk fails.
    """
    open_home(settings.home)
    folder = BlobFolder(settings.blob_folder)
    database = Database(settings.url, on_broken)
    try:
        migrate(database)
    except StartupError:
        database.close()
        raise
    bell = Bell()
    ctx = Context(database, LeaseTimes(settings.lease_seconds), wake=bell.ring)
    caps = settings.max_blob_bytes, settings.max_blobs_bytes
    url = settings.public_url.rstrip("/")
    return Parts(ctx, Reading(ctx), folder, bell, *caps, public_url=url)


def create_app(settings: Settings, parts: Parts, launcher: Launcher | None = None) -> FastAPI:
    """Returns the app; its lifespan runs the sweeper and closes the database."""
    parts = replace(parts, launcher=launcher or NoLauncher())
    sweeper = Sweeper(parts.ctx, parts.launcher, parts.blobs)

    warmer = Warmer(parts.reading)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        parts.bell.loop = asyncio.get_running_loop()
        sweeper.start()
        warmer.start()
        yield
        await asyncio.to_thread(warmer.stop)
        await asyncio.to_thread(sweeper.stop)
        await asyncio.to_thread(parts.ctx.database.close)

    app = FastAPI(
        title="lmtune",
        summary="A hyperparameter tuning service for language models.",
        lifespan=lifespan,
        openapi_url=None,  # served by routes/health.py, behind the gate
        docs_url=None,
        redoc_url=None,
        responses={"default": {"model": problems.Problem, "description": "A problem"}},
    )
    app.state.parts = parts
    app.state.reading = parts.reading
    app.state.pulse = Pulse()
    parts.ctx.database.on_write(app.state.pulse.beat)
    app.state.gate = auth.Gate(parts.ctx.database, _host_names(settings))
    app.add_middleware(Express, parts=parts)  # the innermost
    app.add_middleware(Cap)
    app.add_middleware(auth.Guard, gate=app.state.gate)
    app.add_middleware(_Edge)  # the outermost
    app.state.sweeper = sweeper
    problems.install(app)
    rooms = (studies, workers, blobs, events, login, health, dashboard, trials, drafts, report)
    for room in (*rooms, imports, machines):
        app.include_router(room.router)
    return app


def admit_token(parts: Parts, token: str) -> None:
    """Makes the home folder's token known to the database."""
    parts.ctx.database.write(lambda tx: tokens.add(tx, auth.hashed(token), "token", None))


def forget_home(settings: Settings) -> None:
    """Removes what only a running server leaves in the home folder."""
    (settings.home / "url").unlink(missing_ok=True)


def _host_names(settings: Settings) -> frozenset[str] | None:
    """Returns the names that the server answers to; None: any, behind a proxy."""
    names = {*auth.LOOPBACK, *settings.allowed_hosts}
    if settings.host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        return frozenset(names) if settings.allowed_hosts else None
    return frozenset({*names, settings.host})


class _Edge:
    """Answers defects as problems, and adds to every answer the headers that protect a browser."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        try:
            await self._app(scope, receive, with_headers)
        except ClientDisconnect:  # in the middle of an upload: nobody is there to be answered
            return
        except Exception as error:
            if begun:
                raise
            answer = problems.unforeseen(Request(scope), error)
            await answer(scope, receive, with_headers)
