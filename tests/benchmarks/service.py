"""`make bench-service`: lmtune's server beside Optuna's storage and gRPC proxy, under load.

The same clients, reports and samplers on all of them, side by side in one run, as ratios; then
lmtune alone: an open loop, claims at a steady rate, growth, recovery and a herd. docs/benchmarks.md
says what each number is.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from tests.benchmarks import _parts as parts
from tests.benchmarks._systems import (
    Figures,
    Lmtune,
    Setting,
    System,
    all_systems,
    bench_folder,
    postgres,
    started,
)
from tests.harness.postgres import Postgres

SYSTEMS: Final = [
    f"{kind}-{database}"
    for database in ("sqlite", "postgres")
    for kind in ("lmtune", "optuna", "grpc")
]
SECTIONS: Final = ("compare", "open-loop", "growth", "recovery", "herd")
console = Console(stderr=True)
Cells = dict[str, dict[str, list[Figures]]]  # setting -> system -> one per round


def main() -> None:
    """Runs what the command line asks for."""
    options = _options()
    found: dict[str, Any] = {"machine": machine(), "quick": options.quick}
    try:
        with bench_folder() as folder, postgres() as cluster:
            for section in options.only:
                console.rule(section)
                found[section] = SECTION[section](options, folder, cluster)
    except KeyboardInterrupt:
        console.print("interrupted: what was measured so far follows")
    if options.out:
        Path(options.out).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    elif not sys.stdout.isatty():
        sys.stdout.write(json.dumps(found, indent=2) + "\n")


def machine() -> dict[str, Any]:
    """Returns where and when this was measured."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "load": os.getloadavg()[0],
    }


def _options() -> argparse.Namespace:
    quick = bool(os.environ.get("QUICK"))
    parser = argparse.ArgumentParser(prog="make bench-service", description=__doc__)
    parser.add_argument("--out", help="write the figures as JSON into this file")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS)
    parser.add_argument(
        "--clients", nargs="+", type=int, default=[1, 32] if quick else [1, 32, 200]
    )
    parser.add_argument("--reports", nargs="+", type=int, default=[100] if quick else [10, 100])
    samplers = ["random"] if quick else ["random", "tpe"]
    parser.add_argument("--samplers", nargs="+", choices=["random", "tpe"], default=samplers)
    parser.add_argument("--rounds", type=int, default=1 if quick else 3)
    parser.add_argument("--seconds", type=float, default=3.0 if quick else 5.0)
    parser.add_argument("--quick", action="store_true", default=quick, help="QUICK=1: 2 minutes")
    return parser.parse_args()


def compare(options: argparse.Namespace, folder: Path, cluster: Postgres) -> dict[str, Any]:
    """Every system in every setting, in turn, for some rounds; medians and ratios."""
    cells: Cells = {}
    with all_systems(folder, cluster, options.systems) as systems:
        for number, setting in itertools.product(range(options.rounds), _settings(options)):
            for system in systems:
                console.print(f"round {number + 1}: {setting}: {system.name} ...", end=" ")
                got = system.measure(setting)
                console.print(f"{got.reports_per_s:.0f} reports/s")
                cells.setdefault(str(setting), {}).setdefault(system.name, []).append(got)
        summary = {
            setting: {name: asdict(median(rounds)) for name, rounds in of.items()}
            for setting, of in cells.items()
        }
        _print_comparison(summary, systems)
    return {"median": summary, "ratios": {s: dict(_ratios(of)) for s, of in summary.items()}}


def _settings(options: argparse.Namespace) -> Iterator[Setting]:
    for sampler, reports, clients in itertools.product(
        options.samplers, options.reports, options.clients
    ):
        yield Setting(sampler, reports, clients, options.seconds)


def median(rounds: list[Figures]) -> Figures:
    """Returns the median of each figure over the rounds; errors are summed."""
    found: dict[str, Any] = {}
    for name in asdict(rounds[0]):
        values = [getattr(one, name) for one in rounds if getattr(one, name) is not None]
        if name == "errors":
            kinds = {kind for one in values for kind in one}
            found[name] = {k: sum(one.get(k, 0) for one in values) for k in sorted(kinds)}
        else:
            found[name] = statistics.median(values) if values else None
    return Figures(**found)


def _ratios(of: dict[str, dict[str, Any]]) -> Iterator[tuple[str, float | None]]:
    """Yields lmtune's reports/s over each other system's on the same database.

    None: the other stored no report at all while it was measured.
    """
    for name, got in of.items():
        kind, database = name.split("-")
        ours = of.get(f"lmtune-{database}")
        if kind != "lmtune" and ours:
            theirs = got["reports_per_s"]
            yield f"lmtune over {name}", ours["reports_per_s"] / theirs if theirs else None


def _print_comparison(summary: dict[str, Any], systems: list[System]) -> None:
    for setting, of in summary.items():
        heads = ["", "trials/s", "reports/s", "claim p50", "p99", "report p50", "p99 [ms]"]
        table = Table(*heads, "CPU ms/report", "errors", "lmtune is", title=setting)
        ratios = dict(_ratios(of))
        for system in systems:
            got = of[system.name]
            numbers = [_number(v) for k, v in got.items() if k != "errors"]
            ratio = ratios.get(f"lmtune over {system.name}", "")
            errors = sum(got["errors"].values())
            table.add_row(system.name, *numbers, str(errors), _said(ratio))
        Console(width=130).print(table)


def _said(ratio: float | str | None) -> str:
    if ratio is None:
        return "no report stored"
    return ratio if isinstance(ratio, str) else f"{ratio:.1f}x"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def open_loop(options: argparse.Namespace, folder: Path, cluster: Postgres) -> dict[str, Any]:
    """200 connections at one report a second each, and as fast as they can."""
    seconds = 10.0 if options.quick else 30.0
    found: dict[str, Any] = {}
    for database in ("sqlite", "postgres"):
        name = f"open-{database}"
        system = Lmtune(name, parts.url_of(database, name, folder, cluster), folder / name)
        with started(system.server):
            found[database] = {"one a second": _say(name, parts.open_loop(system, seconds))}
            found[database]["maximum"] = _say(f"{name} maximum", parts.maximum_rate(system, 10.0))
    return found


def growth(options: argparse.Namespace, folder: Path, cluster: Postgres) -> dict[str, Any]:
    """Claims at one a second and reports at full speed with more and more finished trials."""
    found: dict[str, Any] = {}
    for database, size in itertools.product(("sqlite", "postgres"), parts.SIZES):
        with parts.filled(database, size, "tpe", folder, cluster) as system:
            seconds = 15.0 if options.quick else 60.0
            name = f"{database}, {size} finished trials"
            found[name] = {"claims under tpe": _say(name, parts.claims(system, seconds))}
            found[name]["reports"] = _say(f"{name} reports", parts.reports(system, 5.0))
    return found


def recovery(_: argparse.Namespace, folder: Path, cluster: Postgres) -> dict[str, Any]:
    """A killed server with 10,000 trials: seconds to a report and to a suggestion."""
    found: dict[str, Any] = {}
    for database in ("sqlite", "postgres"):
        with ExitStack() as stack:
            filled = parts.filled(database, 10_001, "tpe", folder, cluster)
            system = stack.enter_context(filled)
            found[database] = _say(f"recovery {database}", parts.recovery(system))
    return found


def herd(_: argparse.Namespace, folder: Path, cluster: Postgres) -> dict[str, Any]:
    """1,000 workers at once."""
    found: dict[str, Any] = {}
    for database in ("sqlite", "postgres"):
        name = f"herd-{database}"
        system = Lmtune(name, parts.url_of(database, name, folder, cluster), folder / name)
        with started(system.server):
            found[database] = _say(name, parts.herd(system))
    return found


def _say(name: str, got: dict[str, Any]) -> dict[str, Any]:
    console.print(name, {k: round(v, 1) if isinstance(v, float) else v for k, v in got.items()})
    return got


SECTION: Final = {
    "compare": compare,
    "open-loop": open_loop,
    "growth": growth,
    "recovery": recovery,
    "herd": herd,
}

if __name__ == "__main__":
    main()
