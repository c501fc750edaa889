"""`make bench-scale`: one to N servers on one PostgreSQL, and how far that goes.

The clients of bench-service, shared out among the servers: reports as fast as they are answered,
the cost of a report and of a whole trial, and a fleet of workers in open loop (docs/scale.md).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import psutil
from rich.console import Console
from rich.table import Table

from studies.spec import parse_spec
from tests.benchmarks._fill import study_file
from tests.benchmarks._load import Order
from tests.benchmarks._systems import (
    Figures,
    bench_folder,
    cpu_seconds,
    figures,
    postgres,
    run_module,
    started,
)
from tests.benchmarks.service import machine
from tests.harness.lmtune import Server
from tests.harness.postgres import Postgres

LONG: Final = 10_000  # reports of a trial that does not end while it is measured
console = Console(stderr=True, width=130)
Found = dict[str, dict[str, Any]]


def main() -> None:
    """Runs what the command line asks for."""
    options = _options()
    found: dict[str, Any] = {"machine": machine()}
    with bench_folder() as folder, postgres() as cluster:
        for count in options.servers:
            with fleet(count, folder / f"{count}", cluster) as servers:
                found[f"{count} servers"] = _measure(servers, cluster, options)
    found["machine"]["load after"] = os.getloadavg()[0]
    _print(found)
    if options.out:
        Path(options.out).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    elif not sys.stdout.isatty():
        sys.stdout.write(json.dumps(found, indent=2) + "\n")


def _options() -> argparse.Namespace:
    quick = bool(os.environ.get("QUICK"))
    parser = argparse.ArgumentParser(prog="make bench-scale", description=__doc__)
    parser.add_argument("--out", help="write the figures as JSON into this file")
    parser.add_argument("--servers", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--clients", nargs="+", type=int, default=[32] if quick else [32, 200])
    parser.add_argument("--seconds", type=float, default=3.0 if quick else 10.0)
    parser.add_argument("--warm", type=float, default=0.1, help="seconds per client to claim first")
    parser.add_argument("--workers", type=int, default=50 if quick else 1_000, help="of the fleet")
    parser.add_argument("--rate", type=float, default=2 / 3, help="calls a second of each of them")
    return parser.parse_args()


@contextmanager
def fleet(count: int, folder: Path, cluster: Postgres) -> Iterator[list[Server]]:
    """So many servers of one new database, running."""
    url, blobs = cluster.database(), {"LMTUNE_BLOBS": str(folder / "blobs")}
    with ExitStack() as stack:
        servers = [Server(folder / f"{number}", url, blobs) for number in range(count)]
        for server in servers:
            stack.enter_context(started(server))
        yield servers


def _measure(servers: list[Server], cluster: Postgres, options: argparse.Namespace) -> Found:
    found: Found = {}
    for clients in options.clients:
        order = {"clients": clients, "seconds": options.seconds, "warm": 2 + options.warm * clients}
        found[f"reports, {clients} clients"] = load(servers, cluster, LONG, order)
    order = {"clients": 32, "seconds": options.seconds, "warm": 2.0, "claims_only": True}
    found["trials of one report, 32 clients"] = load(servers, cluster, 1, order)
    order = {"clients": options.workers, "rate": options.rate, "seconds": options.seconds}
    order["warm"] = 2 + options.warm * options.workers
    found[f"open loop, {options.workers} workers"] = load(servers, cluster, LONG, order)
    return found


def load(
    servers: list[Server], cluster: Postgres, reports: int, order: dict[str, Any]
) -> dict[str, Any]:
    """Puts the clients on a new study, an equal part of them on each server."""
    client, name = servers[0].client, f"scale-{os.urandom(4).hex()}"
    client.studies.create(parse_spec(study_file(name, "random", reports)))
    orders = [
        Order(url=server.url, token=server.token, **order | {"clients": share})
        for server, share in zip(servers, shares(order["clients"], len(servers)), strict=True)
    ]
    before = _used(servers, cluster)
    with ThreadPoolExecutor(len(orders)) as pool:
        seen = list(pool.map(lambda each: run_module("_load", each), orders))
    serving, storing = (
        after - was for after, was in zip(_used(servers, cluster), before, strict=True)
    )
    client.studies.act(name, "stop")
    part = order["seconds"] / (order["seconds"] + order["warm"])
    got: Figures = figures(seen, order["seconds"], serving * part)
    said = asdict(got) | {"postgres_ms_per_report": None}
    if got.reports_per_s:
        said["postgres_ms_per_report"] = (
            storing * part * 1e3 / (got.reports_per_s * order["seconds"])
        )
    if order.get("claims_only"):
        trials = len([x for one in seen for x in one["claim"]])
        said["trials_per_s"] = trials / order["seconds"]
        said["cpu_ms_per_trial"] = serving * 1e3 / trials if trials else None
    console.print(name, len(servers), order, said)
    return said


def shares(clients: int, servers: int) -> list[int]:
    """Returns how many of the clients each server has."""
    return [clients // servers + (number < clients % servers) for number in range(servers)]


def _used(servers: list[Server], cluster: Postgres) -> tuple[float, float]:
    """Returns the processor time used so far by the servers and by PostgreSQL [s]."""
    storing = 0.0
    for process in psutil.Process(cluster.pid).children():
        storing += cpu_seconds(process.pid)
    return sum(cpu_seconds(server.pid) for server in servers), storing


def _print(found: dict[str, Any]) -> None:
    heads = ["servers", "", "trials/s", "reports/s", "claim p99 [ms]", "report p50", "p99 [ms]"]
    table = Table(*heads, "server CPU ms/report", "PostgreSQL's", "errors")
    names = ["trials_per_s", "reports_per_s", "claim_p99_ms", "report_p50_ms", "report_p99_ms"]
    for count, parts in found.items():
        for part, got in parts.items() if count != "machine" else ():
            cells = [got[name] for name in [*names, "cpu_ms_per_report", "postgres_ms_per_report"]]
            shown = ["-" if cell is None else f"{cell:.3g}" for cell in cells]
            table.add_row(count, part, *shown, str(sum(got["errors"].values())))
    console.print(table)


if __name__ == "__main__":
    main()
