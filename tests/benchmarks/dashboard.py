"""`make bench-dashboard`: what a large study's pages take, in Chromium, beside optuna-dashboard.

A study is written in bulk into a new SQLite file; lmtune's server and optuna-dashboard serve that
same file, in turn, to the same browser. docs/benchmarks.md says what each number is.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
from playwright.sync_api import Browser, Page, sync_playwright
from playwright.sync_api import TimeoutError as TimeoutException
from rich.console import Console
from rich.table import Table

from studies import wire
from studies.client import WorkerClient
from tests.benchmarks._fill import fill, study_file
from tests.benchmarks.service import machine
from tests.harness.lmtune import Server
from tests.harness.process import Process, free_port, wait_for

STUDY: Final = "large"
POINTS: Final = 20  # of each trial
VISITS: Final = 5  # to each of our pages; the first is cold
OPTUNA_VISITS: Final = 2  # to each of optuna-dashboard's: one may take minutes
REPORTS: Final = 50
PAUSE: Final = 0.3  # between two reports [s]
PATIENCE: Final = 120.0  # for one page [s]
LOOK: Final = 10  # between two looks whether a page is ready [ms]
SIZE: Final = {"width": 1366, "height": 768}
OPTUNA: Final = "import sys; from optuna_dashboard._cli import main; sys.exit(main())"
# What is on the screen is drawn, the table has rows, and the page is live.
READY: Final = """() => {
  const near = (f) => f.getBoundingClientRect().top < innerHeight;
  return [...document.querySelectorAll("[data-figure]")].filter(near).every((f) => f.data)
    && document.querySelector("#trials tbody tr") !== null;
}"""
LISTED: Final = f"""() => [...document.querySelectorAll("main a")]
  .some((a) => a.textContent === "{STUDY}")"""
OPTUNA_READY: Final = ".js-plotly-plot .trace"
OPTUNA_LISTED: Final = f"text={STUDY}"
# Notes when each point of a curve is on the page; the clock is the machine's.
WATCH: Final = """() => {
  window.drawnAt = {};
  const place = document.getElementById("curves");
  place.on("plotly_afterplot", () => {
    const trace = place.data.find((t) => t.meta?.role === "running");
    trace?.x.forEach((x, i) => {
      if (x !== null) window.drawnAt[`${trace.customdata[i]} ${x}`] ??= Date.now();
    });
  });
}"""
console = Console(stderr=True)


def main() -> None:
    """Measures, prints, and keeps the figures where `--out` says."""
    quick = bool(os.environ.get("QUICK"))
    parser = argparse.ArgumentParser(prog="make bench-dashboard", description=__doc__)
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    parser.add_argument("--trials", type=int, default=500 if quick else 10_000)
    parser.add_argument("--reports", type=int, default=5 if quick else REPORTS)
    parser.add_argument("--no-optuna", action="store_true", help="lmtune only")
    said = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lmtune-") as folder:
        found = measure(Path(folder), said.trials, said.reports, not said.no_optuna)
    Console().print(table(found, said.trials))
    if said.out:
        out = {"machine": machine(), "load": os.getloadavg()[0], "trials": said.trials, **found}
        said.out.write_text(json.dumps(out, indent=1))


def measure(folder: Path, trials: int, reports: int, with_optuna: bool) -> dict[str, Any]:
    """Returns the figures by system [ms, MB]."""
    url = f"sqlite:///{folder / 'large.db'}"
    with console.status(f"writing {trials:,} trials"):
        fill(url, study_file(STUDY, "random", POINTS), trials, POINTS)
    with chromium() as browser:
        found = {"lmtune": of_lmtune(browser, folder, url, reports)}
        if with_optuna:
            console.print(table(found, trials))  # already: the other takes long
            found["optuna-dashboard"] = of_optuna(browser, folder, url)
    return found


def of_lmtune(browser: Browser, folder: Path, url: str, reports: int) -> dict[str, Any]:
    """Measures our pages, and reports on their way into an open one."""
    server = Server(folder / "server", url, {"LMTUNE_LEASE_SECONDS": "60"})
    server.start()
    try:
        page = browser.new_context(viewport=SIZE).new_page()
        page.goto(server.client.login_link().url)
        study = f"{server.url}/studies/{STUDY}"
        found = {
            "overview": [visit(page, f"{server.url}/", LISTED) for _ in range(VISITS)],
            "study": [visit(page, study, READY) for _ in range(VISITS)],
        }
        page.wait_for_selector("#live[data-state=live]")
        found["report"] = report_times(page, server, reports)
        found["memory_mb"] = [psutil.Process(server.pid).memory_info().rss / 1e6]
        return found
    finally:
        server.stop()


def of_optuna(browser: Browser, folder: Path, url: str) -> dict[str, Any]:
    """Measures optuna-dashboard's pages. A running trial's curve is not in Optuna's rows."""
    port = free_port()
    process = Process("optuna_dashboard", [], {}, folder / "optuna-dashboard.log")
    process.command = [sys.executable, "-c", OPTUNA, url, "--port", str(port)]
    process.start()
    base = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: answers(f"{base}/"), 60, "optuna-dashboard")
        pages = {
            "overview": (f"{base}/dashboard/", OPTUNA_LISTED),
            "study": (f"{base}/dashboard/studies/1", OPTUNA_READY),
        }
        found = {
            name: [visit_other(browser, *where) for _ in range(OPTUNA_VISITS)]
            for name, where in pages.items()
        }
        found["memory_mb"] = [psutil.Process(process.pid).memory_info().rss / 1e6]
        return found
    finally:
        process.stop()


def answers(url: str) -> bool:
    """True when somebody answers there."""
    try:
        return httpx.get(url, timeout=30).status_code < 500
    except httpx.TransportError:
        return False


def visit(page: Page, url: str, ready: str) -> float:
    """Returns the time from asking for a page until it shows what it is for and answers [ms]."""
    page.goto("about:blank")
    start = time.perf_counter()
    page.goto(url, wait_until="commit")
    # The page itself looks: questions from outside would take one of the two cores from it.
    page.wait_for_function(ready, timeout=1_000 * PATIENCE, polling=LOOK)
    return 1_000 * (time.perf_counter() - start)


def visit_other(browser: Browser, url: str, selector: str) -> float | None:
    """Returns the time until there is such an element [ms]; None: not within PATIENCE.

    A page that draws for minutes answers no question, so the wait is Playwright's own.
    """
    context = browser.new_context(viewport=SIZE)
    page, start = context.new_page(), time.perf_counter()
    try:
        page.goto(url, wait_until="commit", timeout=1_000 * PATIENCE)
        page.wait_for_selector(selector, state="attached", timeout=1_000 * PATIENCE)
        return 1_000 * (time.perf_counter() - start)
    except TimeoutException:
        return None
    finally:
        context.close()


def report_times(page: Page, server: Server, count: int) -> list[float]:
    """Returns the times from a report's answer to its point on the page [ms]."""
    worker = WorkerClient(server.url, server.token)
    body = {"host": "bench", "pid": 1, "device": "cpu", "protocol": wire.PROTOCOL}
    me = worker.register(wire.RegisterBody(name="bench", code_hash="bench", **body)).worker_id
    answered: dict[str, float] = {}
    page.evaluate(WATCH)
    for key, send in reports_of(worker, me):
        send()
        answered[key] = 1_000 * time.time()
        time.sleep(PAUSE)
        if len(answered) == count:
            break
    wait_for(lambda: set(answered) <= set(page.evaluate("window.drawnAt")), 30, "the last points")
    drawn = page.evaluate("window.drawnAt")
    worker.http.close()
    return [drawn[key] - at for key, at in answered.items()]


def reports_of(worker: WorkerClient, me: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yields reports of one trial after another: its key on the page, and what sends it."""
    for seq in range(1, 1_000):
        token = f"{seq:032x}"
        claim = {"lease_token": token, "protocol": wire.PROTOCOL, "code_hash": "bench"}
        grant = worker.claim(me, wire.ClaimBody(seq=seq, wait_ms=20_000, **claim)).grant
        assert grant is not None, "the study grants no trial"
        attempt = worker.attempt(grant, token)
        for step in range(1, POINTS + 1):
            item = wire.ReportItem(step=step, metrics={"validation_loss": 2.0 + 1 / step})
            yield f"{grant.number} {step}", partial(attempt.report, [item])
        attempt.finish(wire.FinishBody(outcome="ok", final_step=POINTS))


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium, headless."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        sys.exit("Chromium is missing; apt-get install -y chromium fonts-liberation")
    sandbox = [] if os.getuid() else ["--no-sandbox"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=sandbox)
        yield browser
        browser.close()


def table(found: dict[str, Any], trials: int) -> Table:
    """The figures as a table: the first visit, the median of the others."""
    shown = Table(title=f"{trials:,} trials of {POINTS} points")
    columns = ("overview cold", "again", "study page cold", "again", "report to curve", "worst")
    for column in ("", *(f"{name} [ms]" for name in columns), "server [MB]"):
        shown.add_column(column, justify="right")
    for system, row in found.items():
        cells = [text for part in ("overview", "study") for text in cold_and_warm(row[part])]
        report = row.get("report")
        cells += (
            [f"{statistics.median(report):,.0f}", f"{max(report):,.0f}"] if report else ["–"] * 2
        )
        shown.add_row(system, *cells, f"{row['memory_mb'][0]:,.0f}")
    return shown


def cold_and_warm(times: list[float | None]) -> list[str]:
    """The first time, and the median of the others; one that did not come is longer than all."""
    far = 1_000 * PATIENCE
    known = [far if time is None else time for time in times]
    return [
        f"{'>' * (time >= far)}{time:,.0f}" for time in (known[0], statistics.median(known[1:]))
    ]


if __name__ == "__main__":
    main()
