"""The dashboard in a real browser, on a real server, while a real worker trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from studies.client import Client
from studies.spec import parse_spec
from tests.acceptance.drawn import DRAWN, complains, new_context, until
from tests.harness.lmtune import Server, Worker
from tests.harness.process import wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

pytestmark = pytest.mark.browser

STUDY = {
    "name": "watched",
    "description": "A <b>tiny</b> LSTM that trains while somebody looks.",
    "data": {"builtin": "stdlib", "validation_fraction": 0.01},
    "model": {"kind": "lstm", "embedding_dim": 16, "hidden_dim": 32},
    "train": {"steps": 400, "batch_size": 8, "sequence_length": 32, "evaluate_every": 20},
    "search": {
        "learning_rate": {"log": [1e-3, 1e-1]},
        "regularizer": {"choice": ["none", "l2"]},
        "dropout": {"uniform": [0.0, 0.4]},
    },
    "sampler": {"kind": "random", "seed": 1},
    "budget": {"trials": 5_000},
}
LAPTOP, PHONE = {"width": 1366, "height": 768}, {"width": 390, "height": 844}
# Points of the learning curves as the browser has drawn them, gaps between curves left out.
POINTS = """
    document.getElementById("curves").data
      .filter((trace) => trace.meta.role !== "baseline")
      .flatMap((trace) => trace.x.filter((x) => x !== null)).length
"""
SMALL = """
    [...document.querySelectorAll(".buttons button, .buttons a")]
      .filter((button) => button.offsetHeight && button.offsetHeight < 32).length
"""
MakePage = Callable[..., "Page"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with one worker, on which the study has two complete trials and goes on."""
    folder = tmp_path_factory.mktemp("dashboard")
    server = Server(folder / "server", "", {"LMTUNE_LEASE_SECONDS": "4"})
    server.start()
    worker = Worker(server, folder / "worker", [])
    worker.command = ["nice", *worker.command]  # the browser goes first
    try:
        server.client.studies.create(parse_spec(STUDY))
        worker.start()
        wait_for(lambda: complete(server.client) >= 2, 180, "second complete trial")
        yield server
    finally:
        worker.stop()
        server.stop()


@pytest.fixture
def open_page(browser: Browser, server: Server) -> Iterator[MakePage]:
    """Opens pages that are signed in by a login link; nothing may be said in their consoles."""
    said: list[str] = []
    contexts = []

    def hear(message: ConsoleMessage) -> None:
        if complains(message):
            said.append(f"{message.type}: {message.text} {message.location}")

    def make(path: str, **options: object) -> Page:
        context = new_context(browser, **{"viewport": LAPTOP, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("console", hear)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(server.client.login_link().url)
        page.goto(server.url + path)
        return page

    yield make
    for context in contexts:
        context.close()
    assert said == []


@pytest.fixture
def study_page(open_page: MakePage) -> Page:
    """The study's page, all figures drawn."""
    page = open_page("/studies/watched")
    until(page, DRAWN)
    return page


def complete(client: Client) -> int:
    return client.studies.get("watched").counts.get("COMPLETE", 0)  # type: ignore[call-overload]


def grows(page: Page) -> bool:
    """True when the drawn curves get longer within a minute."""
    until(page, f"{POINTS} > {page.evaluate(POINTS)}".replace("\n", " "))
    return True


def test_a_login_link_signs_in_once(browser: Browser, server: Server) -> None:
    link = server.client.login_link().url
    first, second = new_context(browser), new_context(browser)
    page, late = first.new_page(), second.new_page()
    page.goto(link)
    assert page.get_by_role("heading", level=1).inner_text() == "Studies"
    late.goto(link)
    assert late.get_by_role("heading", level=1).inner_text() == "Sign in"
    late.get_by_label("Token").fill(server.token)
    late.get_by_role("button", name="Sign in").click()
    late.get_by_role("heading", level=1, name="Studies").wait_for()
    first.close()
    second.close()


def test_without_signing_in_a_browser_is_led_to_the_form(browser: Browser, server: Server) -> None:
    context = new_context(browser)
    page = context.new_page()
    page.goto(f"{server.url}/studies/watched")
    assert page.get_by_role("heading", level=1).inner_text() == "Sign in"
    context.close()


def test_the_overview_leads_to_the_study(open_page: MakePage) -> None:
    page = open_page("/")
    page.wait_for_selector("#live[data-state=live]")
    assert "A <b>tiny</b> LSTM" in page.inner_text("main")
    page.get_by_role("link", name="watched", exact=True).click()
    page.wait_for_url("**/studies/watched")


def test_curves_grow_without_a_reload_and_keep_the_readers_zoom(study_page: Page) -> None:
    visits: list[str] = []
    study_page.on("framenavigated", lambda frame: visits.append(frame.url))
    study_page.evaluate("Plotly.relayout('curves', {'xaxis.range': [0, 123]})")
    assert grows(study_page)
    assert grows(study_page)
    assert visits == []
    assert study_page.evaluate("document.getElementById('curves').layout.xaxis.range") == [0, 123]


def test_a_report_is_drawn_from_the_event_alone(study_page: Page) -> None:
    study_page.evaluate("void (window.fetch = () => new Promise(() => {}))")  # it asks in vain
    before = study_page.evaluate(POINTS)
    until(study_page, f"{POINTS} > {before}".replace("\n", " "))


def test_pause_holds_the_study_and_resume_goes_on(study_page: Page, server: Server) -> None:
    page = study_page
    page.get_by_role("button", name="Pause").click()
    page.wait_for_selector("#toasts >> text=Paused")
    page.wait_for_selector("#state .paused")
    assert page.get_by_role("button", name="Pause").is_disabled()
    wait_for(lambda: not running(server.client), 30, "end of the running trial")
    wait_for(lambda: holds(page), 60, "curves that hold still")  # after the last redraw
    page.get_by_role("button", name="Resume").click()
    page.wait_for_selector("#state .running")
    assert grows(page)


def holds(page: Page) -> bool:
    """True when the curves have not changed for a while."""
    before = page.evaluate(POINTS)
    page.wait_for_timeout(2_500)
    return page.evaluate(POINTS) == before


def running(client: Client) -> int:
    return client.studies.get("watched").counts.get("RUNNING", 0)  # type: ignore[call-overload]


def test_the_table_is_sorted_by_keyboard_and_leads_to_a_trial(study_page: Page) -> None:
    page = study_page
    button = page.get_by_role("button", name="validation loss")
    button.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#trials th[aria-sort=ascending] >> text=validation loss")
    assert grows(page)
    assert page.evaluate("document.activeElement.textContent") == "validation loss"
    page.locator("#trials tbody tr.best a").click()  # another trial may be the best soon
    page.wait_for_url("**/studies/watched/trials/*")
    until(page, DRAWN)
    assert page.inner_text("h1").startswith(f"Trial {page.url.rpartition('/')[2]} complete")


def test_curves_are_drawn_as_the_reader_says_and_the_address_keeps_it(study_page: Page) -> None:
    page = study_page
    page.locator("[name=x]").select_option("seconds")
    until(page, "document.getElementById('curves').layout.xaxis.title.text.includes('time')")
    page.get_by_label("log y").check()
    until(page, "document.getElementById('curves')._fullLayout.yaxis.type === 'log'")
    page.get_by_label("smooth").fill("0.5")
    for said in ("x=seconds", "logy=", "smooth=0.5"):
        assert said in page.url
    page.reload()
    until(page, DRAWN)
    assert page.input_value("[name=x]") == "seconds"
    assert page.evaluate("document.getElementById('curves')._fullLayout.yaxis.type") == "log"
    assert grows(page)


@pytest.mark.parametrize(
    ("kind", "begins"),
    [("PNG", b"\x89PNG"), ("SVG", b"<svg"), ("CSV", b"series,trial,validation ")],
)
def test_a_plot_is_saved(study_page: Page, kind: str, begins: bytes) -> None:
    study_page.locator("#history-save summary").click()
    with study_page.expect_download() as started:
        study_page.locator("#history-save").get_by_role("button", name=kind).click()
    assert started.value.suggested_filename == f"watched-history.{kind.lower()}"
    assert Path(started.value.path()).read_bytes().startswith(begins)


def test_the_overview_is_searched_while_one_types(open_page: MakePage) -> None:
    page = open_page("/")
    page.get_by_label("Name").fill("nothing")
    page.wait_for_selector("text=No study is like that")
    assert page.url.endswith("?q=nothing")
    page.get_by_label("Name").fill("watch")
    page.wait_for_selector("main >> text=watched")


def test_the_best_recipe_is_copied(study_page: Page) -> None:
    study_page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    study_page.get_by_role("button", name="Copy the recipe").click()
    study_page.wait_for_selector("text=Copied")
    assert "learning_rate: " in study_page.evaluate("navigator.clipboard.readText()")


@pytest.mark.parametrize("path", ["/", "/studies/watched", "/studies/watched/trials/0", "/workers"])
def test_a_phone_shows_it_without_scrolling_sideways(open_page: MakePage, path: str) -> None:
    page = open_page(path, viewport=PHONE, is_mobile=True, has_touch=True)
    page.wait_for_selector("#live[data-state=live]")
    until(page, DRAWN)
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    assert page.evaluate(SMALL) == 0


def test_dark_and_light_paint_the_plots_too(study_page: Page) -> None:
    ink = "document.getElementById('curves')._fullLayout.font.color"
    study_page.emulate_media(color_scheme="light")  # as it was drawn
    light = study_page.evaluate(ink)
    study_page.emulate_media(color_scheme="dark")
    until(study_page, f"{ink} !== '{light}'")


def test_no_plot_offers_to_leave_for_another_host(study_page: Page) -> None:
    study_page.hover("#curves")
    titles = study_page.locator("#curves .modebar-btn").evaluate_all(
        "buttons => buttons.map(b => b.dataset.title)"
    )
    assert titles
    assert not [title for title in titles if "loud" in title or "Produced" in title]


def test_what_one_browser_does_another_sees(open_page: MakePage) -> None:
    one, other = open_page("/studies/watched"), open_page("/studies/watched")
    for page in (one, other):
        page.wait_for_selector("#live[data-state=live]")
    one.get_by_role("button", name="Pause").click()
    other.wait_for_selector("#state .paused")
    other.get_by_role("button", name="Resume").click()
    one.wait_for_selector("#state .running")
    until(one, DRAWN)
    assert grows(one)


def test_where_events_are_cut_a_page_is_kept_fresh_by_polling(
    browser: Browser, server: Server
) -> None:
    context = new_context(browser, viewport=LAPTOP)
    page = context.new_page()
    page.route("**/events", lambda route: route.abort())
    page.goto(server.client.login_link().url)
    page.goto(f"{server.url}/studies/watched")
    page.wait_for_selector("text=live, by polling")
    until(page, DRAWN)
    assert grows(page)
    context.close()


def test_a_page_catches_up_after_the_server_was_away(browser: Browser, server: Server) -> None:
    context = new_context(browser, viewport=LAPTOP)
    page = context.new_page()
    page.goto(server.client.login_link().url)
    page.goto(f"{server.url}/studies/watched")
    page.wait_for_selector("#live[data-state=live]")
    until(page, DRAWN)
    server.kill()
    page.wait_for_selector("#live[data-state=lost] >> text=disconnected, retrying")
    server.start()
    page.wait_for_selector("#live[data-state=live]")
    assert grows(page)
    context.close()


def test_stop_asks_first(study_page: Page) -> None:
    page = study_page
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Keep going").click()
    assert page.inner_text("#state").strip() == "running"
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop").click()
    page.wait_for_selector("#state .ended")
    assert "stopped by a person" in page.inner_text("#reason")
