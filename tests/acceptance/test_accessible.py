"""Whoever reads: axe-core finds nothing serious on any page, light or dark, on a laptop or a phone,
and times are those of the reader's zone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import axe_playwright_python
import pytest

from service.figures import FIGURES, Options, StudyData
from service.figures.data import LoadData
from tests.acceptance.drawn import DRAWN, new_context, until
from tests.benchmarks._fill import fill, study_file
from tests.harness.lmtune import Server
from tests.harness.process import wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text()
ASKED = "document.querySelectorAll('#confirm-text').forEach((e) => { e.textContent = 'Stop it?'; })"
SERIOUS = ("serious", "critical")
PATHS = [
    "/",
    "/?q=none",
    "/studies/filled?brush=dropout:0.1:0.4",
    "/studies/filled/trials/3",
    "/studies/filled/compare?trials=3,4",
    "/studies/filled/report",
    "/studies/none",
    "/new",
    "/workers",
]
VIEWS = {
    "light": {"viewport": {"width": 1366, "height": 768}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1366, "height": 768}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a study of forty finished trials."""
    folder = tmp_path_factory.mktemp("accessible")
    url = f"sqlite:///{folder / 'filled.db'}"
    fill(url, study_file("filled", "random", 10), 40)
    server = Server(folder / "server", url, {})
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=VIEWS)
def page(request: pytest.FixtureRequest, browser: Browser, server: Server) -> Iterator[Page]:
    """A page that is signed in, as one of the views."""
    context = new_context(browser, **VIEWS[request.param])
    page = context.new_page()
    page.goto(server.client.login_link().url)
    yield page
    context.close()


def complaints(page: Page) -> list[str]:
    """What axe-core finds serious: the rule, and the elements that break it."""
    page.evaluate(f"() => {{ {AXE} }}")
    found = page.evaluate("() => axe.run().then((result) => result.violations)")
    return [
        f"{one['id']} ({one['impact']}): {[node['html'][:200] for node in one['nodes'][:3]]}"
        for one in found
        if one["impact"] in SERIOUS
    ]


def dialogs(page: Page) -> Iterator[str]:
    """Opens each dialog of the page in turn; gives its name while it is open."""
    for dialog in page.locator("dialog").all():
        dialog.evaluate("dialog => dialog.showModal()")
        yield str(dialog.get_attribute("id"))
        dialog.evaluate("dialog => dialog.close()")


def test_axe_finds_nothing_serious(page: Page, server: Server) -> None:
    found, opened = {}, set()
    for path in PATHS:
        page.goto(server.url + path)
        wait_for(lambda: page.evaluate(DRAWN), 60, f"the plots of {path}")
        if said := complaints(page):
            found[path] = said
        page.evaluate(ASKED)
        for name in dialogs(page):
            opened.add(name)
            if said := complaints(page):
                found[f"{name} of {path}"] = said
    page.context.clear_cookies()
    page.goto(server.url)
    if said := complaints(page):
        found["sign in"] = said
    assert found == {}
    assert opened == {
        "confirm", "enqueue-dialog", "budget-dialog", "narrow-dialog", "fork-dialog",
    }  # fmt: skip


def test_a_form_with_a_notice_and_a_refused_field_has_nothing_serious(
    page: Page, server: Server
) -> None:
    page.goto(f"{server.url}/new")
    page.get_by_label("How momentum is chosen").select_option("uniform")
    page.wait_for_selector("#notes li")
    assert complaints(page) == []
    page.locator("[name='train.steps']").fill("0")
    page.get_by_role("button", name="Create the study").click()
    page.wait_for_selector(".wrong")
    assert complaints(page) == []


def test_axe_would_find_something(page: Page, server: Server) -> None:
    page.goto(server.url)
    page.evaluate("() => document.querySelector('main').append(document.createElement('button'))")
    assert [said.split(" ")[0] for said in complaints(page)] == ["button-name"]


def test_times_are_those_of_the_readers_zone(browser: Browser, server: Server) -> None:
    began = server.client.studies.trial("filled", 3).started_at
    assert began is not None
    context = new_context(browser, timezone_id="Asia/Tokyo", locale="en-GB")
    page = context.new_page()
    page.clock.set_fixed_time(began)
    load = LoadData(3, "cpu", datetime(2026, 11, 25, 20, 0, tzinfo=UTC), 9.0, 2.0**30)
    devices = FIGURES["devices"].json(StudyData([], loads=[load]), Options())
    said = {"body": devices, "content_type": "application/json"}
    page.route("**/figures/devices*", lambda route: route.fulfill(**said))
    page.goto(server.client.login_link().url)
    page.goto(f"{server.url}/studies/filled")
    until(page, DRAWN)
    there = f"{began.astimezone(ZoneInfo('Asia/Tokyo')):%Y-%m-%dT%H:%M:%S}"
    assert page.evaluate("document.getElementById('timeline').data[0].base[0]").startswith(there)
    until(page, "document.querySelector('#timeline .xtitle').textContent === 'time (Asia/Tokyo)'")
    xs = page.evaluate("document.getElementById('devices').data.map((trace) => trace.x[0])")
    assert xs == ["2026-11-26T05:00:00.000"] * 2
    titles = page.locator("#devices :is(.xtitle, .x2title)").all_text_contents()
    assert titles == ["time (Asia/Tokyo)"]
    happened = page.locator("#happened time").first
    assert str(began.year) not in happened.inner_text()
    page.clock.set_fixed_time(began + timedelta(days=2))
    page.reload()
    page.wait_for_selector(f"#happened time >> text={began.astimezone(ZoneInfo('Asia/Tokyo')):%Y}")
    context.close()
