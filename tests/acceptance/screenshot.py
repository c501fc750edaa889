"""Writes docs/dashboard.png: the quickstart study on a real server, seen while it runs.

python -m tests.acceptance.screenshot [FILE]
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from studies.client import Client
from studies.spec import load_spec
from studies.trial import TERMINAL, StudyState
from tests.harness.lmtune import Server
from tests.harness.process import ROOT, wait_for

STUDY = "quickstart"
OVER = 18  # trials that are over when the picture is taken; of 20, so that it still runs
SIZE = {"width": 1366, "height": 1420}  # a laptop's width; down to the slices [px]


def main(target: Path) -> None:
    """Runs the study for about two minutes and writes the picture."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), "", {"LMTUNE_WORKERS": "1"})
        server.start()
        try:
            client = server.client
            client.studies.create(load_spec(ROOT / "studies" / "catalog" / f"{STUDY}.yaml"))
            wait_for(lambda: far_enough(client), 600, f"{OVER} trials that are over")
            picture(server, target)
        finally:
            server.stop()


def far_enough(client: Client) -> bool:
    """True when enough trials are over, or the study is."""
    study = client.studies.get(STUDY)
    over = sum(count for state, count in study.counts.items() if state in TERMINAL)
    return over >= OVER or study.state is StudyState.ENDED


def picture(server: Server, target: Path) -> None:
    """Signs a browser in and writes what it shows of the study."""
    sandbox = [] if os.getuid() else ["--no-sandbox"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=sandbox)
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.goto(server.client.login_link().url)
        page.goto(f"{server.url}/studies/{STUDY}")
        page.wait_for_selector("#slices .main-svg")
        page.wait_for_timeout(2_000)
        page.screenshot(path=target)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "dashboard.png")
