"""bench-dashboard's own machinery, on a study so small that it takes seconds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.benchmarks._fill import fill, study_file
from tests.benchmarks.dashboard import POINTS, STUDY, VISITS, cold_and_warm, of_lmtune

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def test_the_first_visit_stands_apart_from_the_median_of_the_others() -> None:
    assert cold_and_warm([900.0, 100.0, 5_000.0, 200.0]) == ["900", "200"]
    assert cold_and_warm([None, None]) == [">120,000", ">120,000"]


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.browser
def test_every_report_is_seen_on_the_page(browser: Browser, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'large.db'}"
    fill(url, study_file(STUDY, "random", POINTS), 60, POINTS)
    found = of_lmtune(browser, tmp_path, url, POINTS + 2)  # a second trial's first points, too
    assert len(found["overview"]) == len(found["study"]) == VISITS
    assert len(found["report"]) == POINTS + 2
    assert min(found["report"]) > -50  # [ms]: the page's clock is the machine's
