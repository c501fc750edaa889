"""`make bench-turnaround`: how long a warm worker trains nothing between two trials.

From the last evaluation of a trial to the first step of the next, on one worker: lmtune (a real
server and worker, TPE) beside Ray Tune on the same objective, and beside the objective alone, whose
model has to be built in any case. docs/benchmarks.md says what each number is.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

import psutil
from rich.console import Console
from rich.table import Table

from studies.spec import parse_spec
from tests.benchmarks._objective import SENTENCE, STARTUP, document
from tests.harness.lmtune import Server, Worker
from tests.harness.process import ROOT

Ran = list[tuple[float, float]]  # of each trial: its first step began, its last evaluation [unix s]
RAY: Final = "ray[tune]==2.60.0"
RAY_FOLDER: Final = ROOT / ".venv-ray"
NO_REUSE_TRIALS: Final = 6  # each starts a process, which imports torch anew
SECONDS: Final = 600.0  # for one run, of any of them
TRAINED: Final = re.compile(r"trained from (\S+) to (\S+)")
console = Console(stderr=True)


def gaps(ran: Ran, skip: int) -> list[float]:
    """Returns the times between trials [ms], without the first `skip`: before TPE, or cold."""
    pairs = list(itertools.pairwise(ran))[skip:]
    return [1_000 * (following[0] - trial[1]) for trial, following in pairs]


def lmtune(folder: Path, trials: int) -> Ran:
    """Runs the study with a real server on SQLite and one worker; the times are in its log."""
    (folder / "bottles.txt").write_text(SENTENCE)
    server = Server(folder / "server", "", {})
    server.start()
    worker = Worker(server, folder / "worker", [])
    try:
        spec = parse_spec(document(folder / "bottles.txt", trials))
        server.client.studies.create(spec, base=folder)
        worker.start()
        server.wait_for_end("turnaround", SECONDS)
        return logged(worker.output)
    finally:
        worker.stop()
        server.stop()


def logged(log: str) -> Ran:
    """Returns the times that a worker's log tells of each trial; raises where it tells none."""
    found = [[datetime.fromisoformat(t).timestamp() for t in m] for m in TRAINED.findall(log)]
    if not found:
        raise RuntimeError(f"the worker's log tells no times:\n{log[-2_000:]}")
    return [(first, last) for first, last in found]


def alone(folder: Path, trials: int) -> Ran:
    """Runs the objective back to back in one process."""
    return _run([sys.executable, "-m", "tests.benchmarks._objective"], folder, [f"{trials}"])


def ray_tune(reuse: bool) -> Callable[[Path, int], Ran]:
    """Returns what runs the study with Ray Tune, its actor kept from trial to trial or not."""

    def run(folder: Path, trials: int) -> Ran:
        trials = trials if reuse else NO_REUSE_TRIALS
        command = [str(RAY_FOLDER / "bin" / "python"), "-m", "tests.benchmarks._ray"]
        return _run(command, folder, [f"{trials}", "reuse" if reuse else "fresh"])

    return run


def _run(command: list[str], folder: Path, arguments: list[str]) -> Ran:
    """Returns what a process wrote into the file that it was given."""
    text, out, log = folder / "bottles.txt", folder / "ran.json", folder / "log"
    text.write_text(SENTENCE)
    env = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, str(text), *arguments, str(out)], cwd=ROOT, env=env, stdout=file, stderr=file
        )
        try:
            status = process.wait(SECONDS)
        except BaseException:
            _end_family(process)
            raise
    if status:
        raise RuntimeError(f"{command[2]} ended with {status}:\n{log.read_text()[-4_000:]}")
    return [(first, last) for first, last in json.loads(out.read_text())]


def _end_family(process: subprocess.Popen[bytes]) -> None:
    for child in psutil.Process(process.pid).children(recursive=True):
        child.kill()
    process.kill()
    process.wait()


def install_ray() -> str | None:
    """Makes an environment for Ray beside ours, which it shares; returns why there is none.

    Ray is no dependency of lmtune: 0.6 GB and its own pins, for this benchmark only.
    """
    if (RAY_FOLDER / ".done").exists():
        return None
    console.print(f"installing {RAY} into {RAY_FOLDER.name} (once, 0.6 GB)", markup=False)
    pip = [str(RAY_FOLDER / "bin" / "python"), "-m", "pip", "install", "-qq", RAY]
    pip += os.environ.get("PIP_ARGS", "").split()
    for command in ([sys.executable, "-m", "venv", "--clear", str(RAY_FOLDER)], pip):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"{' '.join(command)}: {done.stderr.strip()[-500:]}"
    ours = "".join(f"{path}\n" for path in sys.path if path.endswith("site-packages"))
    packages = next((RAY_FOLDER / "lib").glob("python*/site-packages"))
    (packages / "lmtune.pth").write_text(ours)  # torch, optuna and pydantic are found there
    (RAY_FOLDER / ".done").touch()
    return None


def measure(rounds: int, trials: int, with_ray: bool) -> dict[str, list[float]]:
    """Returns the times between trials by system [ms], all rounds together, taken in turns."""
    systems: dict[str, Callable[[Path, int], Ran]] = {"lmtune": lmtune, "objective alone": alone}
    if with_ray:
        systems["Ray Tune, reuse_actors"] = ray_tune(reuse=True)
        systems["Ray Tune, as it ships"] = ray_tune(reuse=False)
    found: dict[str, list[float]] = {name: [] for name in systems}
    for number in range(rounds):
        for name, run in systems.items():
            with (
                console.status(f"round {number + 1} of {rounds}: {name}"),
                tempfile.TemporaryDirectory(prefix="lmtune-") as folder,
            ):
                ran = run(Path(folder), trials)
            between = gaps(ran, 1 if len(ran) <= NO_REUSE_TRIALS else STARTUP)
            console.print(f"round {number + 1}: {name}: {statistics.median(between):,.0f} ms")
            found[name] += between
    return found


def summary(found: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Returns median, least and most per system [ms], and how many times lmtune's the median is."""
    ours = statistics.median(found["lmtune"])
    return {
        name: {
            "median_ms": statistics.median(times),
            "min_ms": min(times),
            "max_ms": max(times),
            "gaps": len(times),
            "of_lmtune": statistics.median(times) / ours,
        }
        for name, times in found.items()
    }


def show(rows: dict[str, dict[str, float]]) -> None:
    """Prints the table."""
    table = Table(title="last evaluation of a trial to first step of the next, same worker")
    for column in ("", "median ms", "min", "max", "gaps", "x lmtune"):
        table.add_column(column, justify="left" if not column else "right")
    for name, row in rows.items():
        numbers = [f"{row[key]:,.0f}" for key in ("median_ms", "min_ms", "max_ms", "gaps")]
        table.add_row(name, *numbers, f"{row['of_lmtune']:,.2f}")
    Console().print(table)


def main() -> None:
    """Measures, prints, and keeps the numbers where `--out` says."""
    parser = argparse.ArgumentParser(prog="make bench-turnaround", description=__doc__)
    parser.add_argument("--out", type=Path, help="write the numbers here as JSON")
    quick = bool(os.environ.get("QUICK"))
    parser.add_argument("--rounds", type=int, default=1 if quick else 2)
    least = NO_REUSE_TRIALS + STARTUP
    trials = least if quick else 30
    parser.add_argument("--trials", type=int, default=trials, help=f"per round, {least} at least")
    parser.add_argument("--no-ray", action="store_true", help="lmtune and the objective only")
    options = parser.parse_args()
    reason = "asked for" if options.no_ray else install_ray()
    if reason:
        again = "make bench-turnaround PIP_ARGS='--index-url URL'"
        console.print(f"Ray Tune is SKIPPED: {reason}\nonce that is mended: {again}", markup=False)
    found = measure(options.rounds, options.trials, with_ray=not reason)
    rows = summary(found)
    show(rows)
    if options.out:
        load = os.getloadavg()[0]
        options.out.write_text(json.dumps({"summary": rows, "ms": found, "load": load}, indent=2))


if __name__ == "__main__":
    main()
