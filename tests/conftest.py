"""Fixtures that every room's tests share; the programs behind them are in tests/harness."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import hypothesis
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.harness.lmtune import Server, Worker
    from tests.harness.namespaces import Cable
    from tests.harness.postgres import Postgres
    from tests.harness.ray_cluster import RayCluster
    from tests.harness.slurm_cluster import SlurmCluster

# A shell has its background jobs ignore Ctrl-C, and so would every program that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples every time, however slow the machine: a failure is a change of ours.
hypothesis.settings.register_profile(
    "lmtune", deadline=None, derandomize=True, database=None, print_blob=True
)
hypothesis.settings.load_profile("lmtune")

MakeServer = Callable[..., "Server"]
MakeWorker = Callable[..., "Worker"]


def _missing(ring: str, what: str, install: str) -> NoReturn:
    """Skips the test with the line that would let it run; fails where the ring is required."""
    message = f"{what} is missing; to run this: {install}"
    if ring in os.environ.get("LMTUNE_REQUIRE", "").split(","):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that the processes end at about the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the settings of the person who runs it."""
    for name in os.environ:
        if name.startswith("LMTUNE_") and name != "LMTUNE_REQUIRE":
            monkeypatch.delenv(name)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new, empty LMTUNE_HOME."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("LMTUNE_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL server for the session; `postgres.database()` makes an empty database."""
    from tests.harness import postgres as harness

    programs = harness.find_programs()
    if programs is None:
        _missing("postgres", "PostgreSQL", harness.INSTALL)
    server = harness.Postgres(programs)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[RayCluster]:
    """A cluster of Ray of three nodes on this machine, two of them with a GPU that is not there."""
    from tests.harness.ray_cluster import INSTALL, LOOPBACK, RayCluster

    if find_spec("ray") is None:
        _missing("ray", "Ray", INSTALL)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in LOOPBACK.items():
            patch.setenv(name, value)
        cluster = RayCluster(3)
        yield cluster
        cluster.close()


@pytest.fixture(scope="session")
def nginx() -> Path:
    """The program of nginx."""
    found = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        _missing("nginx", "nginx", "apt-get install -y nginx-light")
    return Path(found)


@pytest.fixture
def cables() -> Iterator[list[Cable]]:
    """Two network namespaces, each with a cable to this one."""
    from tests.harness import namespaces

    if not namespaces.possible():
        _missing("namespaces", "the right to make network namespaces", namespaces.INSTALL)
    with namespaces.cables(2) as made:
        yield made


@pytest.fixture(scope="module")
def slurm_cluster() -> Iterator[SlurmCluster]:
    """Slurm on this machine with three nodes, each with a GPU that is not there."""
    from tests.harness import slurm_cluster as harness

    if not harness.available() or find_spec("submitit") is None:
        _missing("slurm", "Slurm", harness.INSTALL)
    cluster = harness.SlurmCluster(3)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.environment.items():
            patch.setenv(name, value)
        yield cluster
    cluster.close()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new, empty database: the test runs on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'lmtune.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.database()


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[MakeServer]:
    """Starts real servers: `make_server(database_url="", home=None, LMTUNE_LEASE_SECONDS="2")`.

    The server is ready when it is returned, starts no worker of its own unless LMTUNE_WORKERS says
    so, and ends with the test. `server.kill()` is kill -9; `server.start()` starts it again.
    """
    from tests.harness.lmtune import Server

    servers: list[Server] = []

    def make(database_url: str = "", home: Path | None = None, **env: str) -> Server:
        server = Server(home or tmp_path / f"server-{len(servers)}", database_url, env)
        servers.append(server)
        server.start()
        return server

    yield make
    for server in servers:
        server.stop()


@pytest.fixture
def server(make_server: MakeServer) -> Server:
    """A real server on SQLite, with no worker."""
    return make_server()


@pytest.fixture
def make_worker(tmp_path: Path) -> Iterator[MakeWorker]:
    """Starts real workers: `make_worker(server, "--once")`; they end with the test.

    `enter` is a command that starts the worker's: in another network namespace, say.
    """
    from tests.harness.lmtune import Worker

    workers: list[Worker] = []

    def make(server: Server, *arguments: str, enter: Sequence[str] = ()) -> Worker:
        worker = Worker(server, tmp_path / f"worker-{len(workers)}", list(arguments))
        worker.command = [*enter, *worker.command]
        workers.append(worker)
        worker.start()
        return worker

    yield make
    for worker in workers:
        worker.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One headless Chromium (the system's) for a module; Playwright keeps an event loop running
    in this thread while it lasts, so tests that call asyncio.run belong to other modules."""
    names = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        _missing("browser", "Chromium", "apt-get install -y chromium fonts-liberation")
    from playwright.sync_api import sync_playwright

    from tests.harness.process import PATIENCE

    sandbox = [] if os.getuid() else ["--no-sandbox"]  # Chromium refuses root with its sandbox
    with sync_playwright() as playwright:
        limit = 1_000.0 * 30 * PATIENCE  # [ms]
        chromium = playwright.chromium.launch(executable_path=path, args=sandbox, timeout=limit)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of its own, with no cookies."""
    from tests.acceptance.drawn import new_context

    context = new_context(browser)
    yield context.new_page()
    context.close()
