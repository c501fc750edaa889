"""Writes the pictures in docs/: the quickstart study on a real server, seen while it runs.

python -m tests.acceptance.screenshot [FOLDER]
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import sync_playwright

from studies.client import Client
from studies.spec import load_spec
from studies.trial import TERMINAL, StudyState
from tests.harness.lmtune import Server
from tests.harness.process import ROOT, wait_for

STUDY = "quickstart"
OVER = 12  # trials that are over when the pictures are taken; of 20, so that it still runs


@dataclass(frozen=True)
class Picture:
    """A page as a browser of some size shows it."""

    path: str
    ready: str  # is there when the page is drawn
    width: int  # px
    height: int


PICTURES = {
    "dashboard.png": Picture(f"/studies/{STUDY}", "#slices .main-svg", 1366, 1420),
    "phone.png": Picture(f"/studies/{STUDY}", "#history .main-svg", 390, 844),
    "new-study.png": Picture(f"/new?like={STUDY}", "[data-preview] rect", 1366, 1000),
}


def main(target: Path) -> None:
    """Runs the study for about two minutes and writes the pictures into a folder."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), "", {"LMTUNE_WORKERS": "1"})
        server.start()
        try:
            client = server.client
            client.studies.create(load_spec(ROOT / "studies" / "catalog" / f"{STUDY}.yaml"))
            wait_for(lambda: far_enough(client), 600, f"{OVER} trials that are over")
            take(server, target)
        finally:
            server.stop()


def far_enough(client: Client) -> bool:
    """True when enough trials are over, or the study is."""
    study = client.studies.get(STUDY)
    over = sum(count for state, count in study.counts.items() if state in TERMINAL)
    return over >= OVER or study.state is StudyState.ENDED


def take(server: Server, target: Path) -> None:
    """Signs a browser in and writes what it shows."""
    sandbox = [] if os.getuid() else ["--no-sandbox"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=sandbox)
        context = browser.new_context(color_scheme="light")
        page = context.new_page()
        page.goto(server.client.login_link().url)
        for name, picture in PICTURES.items():
            page.set_viewport_size({"width": picture.width, "height": picture.height})
            page.goto(f"{server.url}{picture.path}")
            page.wait_for_selector(picture.ready)
            page.wait_for_timeout(2_000)
            page.screenshot(path=target / name)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs")
