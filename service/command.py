"""The command `lmtune-server`: its options, and how a server begins and ends."""

from __future__ import annotations

import fcntl
import logging
import os
import resource
import socket
import sys
import threading
from pathlib import Path
from typing import IO, Annotated, Final, TypeVar

import typer
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, ValidationError
from pydantic_settings import SettingsError

from service import auth
from service.app import admit_token, create_app, forget_home, open_home, open_parts
from service.launcher.base import Launcher, NoLauncher
from service.launcher.keeper import make_places
from service.launcher.local import LocalLauncher, LocalOptions, make_slots
from service.launcher.ray import RayLauncher, RayOptions
from service.launcher.slurm import SlurmLauncher, SlurmOptions
from service.reconcile import differences
from service.routes.login import make_link
from service.routes.parts import Parts
from service.settings import Settings
from service.store.tx import said
from service.sweeper import Sweeper
from studies.errors import LmtuneError, StartupError

logger = logging.getLogger(__name__)
_GRACEFUL_SECONDS: Final = 3  # for connections that are open at the end
_BACKLOG: Final = 2_048  # connections that may wait to be accepted
_FILES: Final = 16_384  # open at once; many systems begin with 1,024
_BROKEN: Final = 74  # exit code: EX_IOERR of sysexits.h
OptionsT = TypeVar("OptionsT", bound=BaseModel)
cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class _Server(uvicorn.Server):
    """Lets the workers checkpoint and go while it still serves them; a second signal ends at once.

    It takes no signal over from uvicorn but the first, so the process exits 0 after a clean end.
    """

    def __init__(self, config: uvicorn.Config, parts: Parts, sweeper: Sweeper) -> None:
        super().__init__(config)
        self._parts, self._sweeper, self._draining = parts, sweeper, False

    def handle_exit(self, sig: int, frame: object) -> None:
        """Begins the end; called in the main thread."""
        if self._draining:
            super().handle_exit(sig, None)
            return
        self._draining = True
        threading.Thread(target=self._drain, name="drain").start()

    def _drain(self) -> None:
        logger.info("ending: workers checkpoint and release their trials")
        try:
            self._sweeper.drain(self._parts.ctx.lease.drain)
        except Exception:
            logger.exception("the workers' end could not be recorded; their leases will run out")
        finally:
            self._parts.bell.closing = True
            self._parts.bell.ring()
            self.should_exit = True


@cli.callback(invoke_without_command=True)
def serve(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0: any free one.")] = None,
) -> None:
    """Serves lmtune. Settings are environment variables LMTUNE_..., see docs/operations.md.

    The first start makes LMTUNE_HOME (./.lmtune) with a SQLite database and a token. For Postgres
    set LMTUNE_DATABASE_URL=postgresql+psycopg://USER:PASSWORD@HOST/NAME.
    """
    if context.invoked_subcommand is not None:
        return
    settings = Settings()
    said = {"host": host or settings.host, "port": settings.port if port is None else port}
    settings = settings.model_copy(update=said)
    logging.getLogger().setLevel(settings.log_level.upper())
    _check_bind(settings)
    open_home(settings.home)
    with _only_server_of(settings.home), _bind(settings) as listener:
        _serve(settings, listener)


@cli.command()
def reconcile() -> None:
    """Prints every difference between lmtune's rows and Optuna's; exits 1 if there is one."""
    parts = open_parts(Settings())
    try:
        found = differences(parts.ctx.database)
    finally:
        parts.ctx.database.close()
    for line in found:
        sys.stdout.write(line + "\n")
    raise typer.Exit(bool(found))


def main() -> None:
    """Runs the command; what is wrong is said in one line on standard error, with exit code 1."""
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        cli()
    except LmtuneError as error:
        _fail(str(error))
    except SettingsError as error:
        _fail(f"{error}; write it as JSON (docs/operations.md)")
    except ValidationError as error:
        wrong = error.errors()[0]
        _fail(f"LMTUNE_{str(wrong['loc'][0]).upper()}: {wrong['input']!r}: {wrong['msg']}")


def _serve(settings: Settings, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    url = f"http://{_reachable(host)}:{port}"
    _allow_connections()
    parts = open_parts(settings, _end_broken)
    token = auth.home_token(settings.home)
    admit_token(parts, token)
    (settings.home / "url").write_text(url + "\n", encoding="utf-8")
    app = create_app(settings, parts, _launcher(settings, url, token))
    config = make_config(app, settings)
    database = parts.ctx.database
    logger.info("serving at %s (database %s, %s)", url, database.url, database.kind)
    logger.info("sign in at %s (works once)", make_link(parts, url).url)
    try:
        _Server(config, parts, app.state.sweeper).run(sockets=[listener])
    finally:
        forget_home(settings)


def make_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """Returns how uvicorn serves the app; whom it believes that a call came by TLS."""
    proxies = map(str, settings.trusted_proxies)
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=_GRACEFUL_SECONDS,
        proxy_headers=settings.allow_http or bool(settings.trusted_proxies),
        forwarded_allow_ips=[*auth.LOOPBACK, *proxies],
    )


def _end_broken(error: BaseException) -> None:
    """Ends the process as a crash does: what SQLite knows of a file that fails is not to be used.

    The next start reads the file anew, and rolls back what was not acknowledged.
    """
    logger.critical("the database's file or disk fails; the server ends: %s", said(error))
    logging.shutdown()
    os._exit(_BROKEN)


def _allow_connections() -> None:
    """Lets the process hold a connection of every worker, as far as it may."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if now < _FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, _FILES), most))


def _launcher(settings: Settings, url: str, token: str) -> Launcher:
    """Returns what starts the workers; raises StartupError where it cannot."""
    if settings.workers == 0:
        return NoLauncher()
    if settings.launcher == "local":
        local = make_slots(settings.workers, _options(settings, LocalOptions).devices)
        return LocalLauncher(local, url, token, settings.home) if local else NoLauncher()
    if settings.workers == "auto":
        raise StartupError(f"LMTUNE_WORKERS: say how many {settings.launcher} may run at once")
    url = settings.public_url or url
    places, home = make_places(settings.launcher, settings.workers), settings.home
    if settings.launcher == "slurm":
        return SlurmLauncher(places, url, home, _options(settings, SlurmOptions))
    return RayLauncher(places, url, token, home, _options(settings, RayOptions))


def _options(settings: Settings, model: type[OptionsT]) -> OptionsT:
    try:
        return model.model_validate(settings.launcher_options)
    except ValidationError as error:
        wrong = error.errors()[0]
        known = ", ".join(model.model_fields)
        raise StartupError(
            f"LMTUNE_LAUNCHER_OPTIONS: {'.'.join(map(str, wrong['loc']))}: {wrong['msg']}; "
            f"{settings.launcher} takes {known}"
        ) from None


def _check_bind(settings: Settings) -> None:
    """Raises StartupError for an address beyond this machine without TLS before it."""
    if settings.host not in auth.LOOPBACK and not settings.allow_http:
        raise StartupError(
            f"{settings.host} is reached from other machines, and this server speaks plain HTTP; "
            "put a TLS proxy before it and set LMTUNE_ALLOW_HTTP=1 (docs/operations.md)"
        )


def _bind(settings: Settings) -> socket.socket:
    """Returns the listening socket; raises StartupError where the port is taken."""
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listener = socket.create_server((settings.host, settings.port), family=family)
        # Connections inherit it; asyncio sets it on sockets only that name their protocol, and
        # without it every answer on a kept connection waits 40 ms for an acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        raise StartupError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; "
            "choose another with --port or LMTUNE_PORT"
        ) from None


def _only_server_of(home: Path) -> IO[str]:
    """Returns the home folder's lock, held while it is open; raises StartupError if it is held."""
    file = (home / "lock").open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read().strip()
        file.close()
        raise StartupError(
            f"another server (pid {holder}) runs on {home}; stop it, or set LMTUNE_HOME to another"
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _reachable(host: str) -> str:
    """Returns how this machine reaches an address that is listened on."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _fail(message: str) -> None:
    sys.stderr.write(f"lmtune-server: {message}\n")
    raise SystemExit(1)
