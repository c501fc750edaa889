"""What bench-service compares: lmtune's server, Optuna's storage and Optuna's gRPC proxy."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import optuna
import psutil
from optuna.storages import RDBStorage

from studies.spec import parse_spec
from tests.benchmarks._fill import study_file
from tests.benchmarks._load import Order
from tests.benchmarks._optuna import OptunaOrder
from tests.harness.lmtune import Server
from tests.harness.postgres import Postgres, find_programs
from tests.harness.process import ROOT, free_port, wait_for

WARM_SECONDS: Final = 1.0  # before measuring begins


@dataclass(frozen=True)
class Setting:
    """One cell of the comparison, the same for every system."""

    sampler: str  # random or tpe
    reports: int  # of a trial
    clients: int
    seconds: float  # measured, after the warm-up

    def __str__(self) -> str:
        return f"{self.sampler}, {self.reports} reports a trial, {self.clients} clients"


@dataclass
class Figures:
    """What one system did in one setting."""

    trials_per_s: float
    reports_per_s: float
    claim_p50_ms: float | None
    claim_p99_ms: float | None
    report_p50_ms: float | None
    report_p99_ms: float | None
    cpu_ms_per_report: float | None  # of the serving process; Optuna's storage: of all clients
    errors: dict[str, int]


class System(Protocol):
    """Something that can be put under load."""

    name: str

    def measure(self, setting: Setting) -> Figures:
        """Returns the figures of one setting."""


def percentile(values: Sequence[float], part: float) -> float | None:
    """Returns the value that this part of them does not exceed (nearest rank); None of none."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(part * len(values)) - 1)]


def ms(values: Sequence[float], part: float) -> float | None:
    """Returns a percentile of seconds in milliseconds."""
    found = percentile(values, part)
    return None if found is None else found * 1_000


def figures(seen: Sequence[dict[str, Any]], seconds: float, cpu: float) -> Figures:
    """Returns the figures of what all load processes saw; `cpu` in seconds."""
    calls = {kind: [x for s in seen for x in s[kind]] for kind in ("claim", "report", "finish")}
    errors = Counter[str]()
    for one in seen:
        errors.update({k: n for k, n in one["statuses"].items() if k not in ("200", "201")})
    reports = len(calls["report"])
    return Figures(
        trials_per_s=len(calls["finish"]) / seconds,
        reports_per_s=reports / seconds,
        claim_p50_ms=ms(calls["claim"], 0.5),
        claim_p99_ms=ms(calls["claim"], 0.99),
        report_p50_ms=ms(calls["report"], 0.5),
        report_p99_ms=ms(calls["report"], 0.99),
        cpu_ms_per_report=cpu * 1_000 / reports if reports else None,
        errors=dict(errors),
    )


def cpu_seconds(pid: int) -> float:
    """Returns the processor time a process has used [s]."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def run_module(name: str, order: Order | OptunaOrder) -> Any:
    """Returns what a load process of this package saw."""
    command = [sys.executable, "-m", f"tests.benchmarks.{name}", json.dumps(asdict(order))]
    return json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)


class Lmtune:
    """A server as it ships, on a database of its own."""

    def __init__(self, name: str, url: str, folder: Path) -> None:
        self.name = name
        self.server = Server(folder, url, {})
        self._numbers = itertools.count()

    def measure(self, setting: Setting) -> Figures:
        """Puts the setting's clients on a new study."""
        study = f"bench-{next(self._numbers)}"
        document = study_file(study, setting.sampler, setting.reports)
        self.server.client.studies.create(parse_spec(document))
        began = cpu_seconds(self.server.pid)
        seen = self.load(clients=setting.clients, seconds=setting.seconds, warm=WARM_SECONDS)
        used = cpu_seconds(self.server.pid) - began
        self.server.client.studies.act(study, "stop")
        measured = setting.seconds / (setting.seconds + WARM_SECONDS)
        return figures([seen], setting.seconds, used * measured)

    def load(self, **order: Any) -> dict[str, Any]:
        """Returns what a load process of this order saw of the server."""
        said = Order(url=self.server.url, token=self.server.token, **order)
        return dict(run_module("_load", said))


class Optuna:
    """Optuna's storage on a database, or behind its proxy."""

    def __init__(self, name: str, url: str, port: int | None = None) -> None:
        self.name, self.url = name, url
        self.where = url if port is None else f"grpc:{port}"
        self.proxy: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count()

    def measure(self, setting: Setting) -> Figures:
        """Puts the setting's clients, each a process, on a new study."""
        study = f"bench-{self.name}-{next(self._numbers)}"
        storage = RDBStorage(self.url)
        optuna.create_study(study_name=study, storage=storage)
        storage.engine.dispose()
        order = OptunaOrder(
            storage=self.where,
            study=study,
            sampler=setting.sampler,
            reports=setting.reports,
            clients=setting.clients,
            seconds=setting.seconds,
            warm=WARM_SECONDS,
        )
        began = cpu_seconds(self.proxy.pid) if self.proxy else 0.0
        seen = run_module("_optuna", order)
        used = cpu_seconds(self.proxy.pid) - began if self.proxy else sum(s["cpu"] for s in seen)
        measured = setting.seconds / (setting.seconds + WARM_SECONDS)
        return figures(seen, setting.seconds, used * measured)


@contextmanager
def bench_folder() -> Iterator[Path]:
    """A folder on the disk, not in memory: what is durable has to reach a disk."""
    folder = Path(tempfile.mkdtemp(prefix="lmtune-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL whose commits are durable."""
    programs = find_programs()
    if programs is None:
        raise SystemExit("bench-service needs PostgreSQL: apt-get install -y postgresql")
    server = Postgres(programs, fsync=True)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def started(server: Server) -> Iterator[Server]:
    """The server, running."""
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def optuna_proxy(system: Optuna, port: int) -> Iterator[None]:
    """Optuna's gRPC proxy on the system's database."""
    command = [sys.executable, "-m", "tests.benchmarks._optuna", "proxy", system.url, str(port)]
    system.proxy = subprocess.Popen(command, cwd=ROOT)
    try:
        wait_for(lambda: _listens(port), 30, f"gRPC proxy on port {port}")
        yield
    finally:
        system.proxy.terminate()
        system.proxy.wait(10)


def _listens(port: int) -> bool:
    mine = psutil.net_connections("tcp")
    return any(c.laddr and c.laddr.port == port and c.status == "LISTEN" for c in mine)


@contextmanager
def all_systems(folder: Path, cluster: Postgres, wanted: Sequence[str]) -> Iterator[list[System]]:
    """The wanted systems, started; lmtune first."""
    urls = {
        "sqlite": lambda name: f"sqlite:///{folder / name}.db",
        "postgres": lambda name: cluster.database(),
    }
    systems: list[System] = []
    with ExitStack() as stack:
        for database, url in urls.items():
            if (name := f"lmtune-{database}") in wanted:
                ours = Lmtune(name, url(name), folder / name)
                stack.enter_context(started(ours.server))
                systems.append(ours)
            if (name := f"optuna-{database}") in wanted:
                systems.append(Optuna(name, url(name)))
            if (name := f"grpc-{database}") in wanted:
                port = free_port()
                theirs = Optuna(name, url(name), port)
                stack.enter_context(optuna_proxy(theirs, port))
                systems.append(theirs)
        yield systems
