"""A box over an axis of the parallel coordinates filters the study's page, in a real browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from service.store import tables
from tests.acceptance.drawn import DRAWN, new_context, until
from tests.benchmarks._fill import fill, fill_more, study_file
from tests.harness.lmtune import Server
from tests.harness.process import wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

pytestmark = pytest.mark.browser
LAPTOP = {"viewport": {"width": 1366, "height": 768}}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
FILLED, YOUNG = study_file("filled", "random", 10), study_file("young", "random", 10)
FILLED["search"] |= {"regularizer": {"choice": ["none", "l1", "l2"]}}
HIGHEST = """
    Math.max(0, ...document.getElementById("rates").data
      .filter((trace) => trace.customdata).flatMap((trace) => [...trace.x]))
"""
LOSSES = 'document.getElementById("slices").data.flatMap((trace) => [...trace.y])'
OpenPage = Callable[..., "Page"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a study of forty finished trials, and one of none yet."""
    folder = tmp_path_factory.mktemp("brushing")
    url = f"sqlite:///{folder / 'filled.db'}"
    fill(url, FILLED, 40)
    fill(url, YOUNG, 0)
    regularize(url)
    server = Server(folder / "server", url, {})
    server.start()
    yield server
    server.stop()


@pytest.fixture
def open_page(browser: Browser, server: Server) -> Iterator[OpenPage]:
    """Opens a page that is signed in; nothing may be said in its console."""
    said: list[str] = []
    contexts = []

    def hear(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            said.append(f"{message.type}: {message.text} {message.location}")

    def make(path: str, view: dict[str, object] = LAPTOP) -> Page:
        contexts.append(new_context(browser, **view))
        page = contexts[-1].new_page()
        page.on("console", hear)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(server.client.login_link().url)
        page.goto(server.url + path)
        page.wait_for_selector("#live[data-state=live]")
        return page

    yield make
    for context in contexts:
        context.close()
    assert said == []


def regularize(url: str) -> None:
    """Gives each trial a regularizer, in turn."""
    engine, table = sa.create_engine(url), tables.trials
    with engine.begin() as connection:
        for one in connection.execute(sa.select(table)).all():
            params = {**one.params, "regularizer": ("none", "l1", "l2")[one.number % 3]}
            connection.execute(table.update().where(table.c.id == one.id).values(params=params))
    engine.dispose()


def draw_box(page: Page, left: float, top: float, right: float, bottom: float) -> None:
    """Draws a box over the axes; its ends are parts of the plot's width and height."""
    until(page, DRAWN)  # else the page moves under the mouse
    plot = page.locator("#parallel .nsewdrag").first
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + left * box["width"], box["y"] + top * box["height"])
    page.mouse.down()
    to = box["x"] + right * box["width"], box["y"] + bottom * box["height"]
    page.mouse.move(*to, steps=5)
    page.mouse.up()


def cells(page: Page, column: str) -> list[str]:
    """What the table says in a column, of all rows that are shown."""
    heads = page.locator("#trials th").all_inner_texts()
    if column not in heads:
        return []
    return page.locator(f"#trials tbody td:nth-child({heads.index(column) + 1})").all_inner_texts()


def values(page: Page, column: str) -> list[float]:
    """The same as numbers."""
    return [float(text.strip("★ ")) for text in cells(page, column)]


def test_a_brush_over_an_axis_filters_the_table_and_the_plots(open_page: OpenPage) -> None:
    page = open_page("/studies/filled")
    draw_box(page, 0.01, 0.5, 0.15, 0.98)
    chip = page.get_by_role("button", name="Show all values of learning_rate again")
    chip.wait_for()
    wait_for(
        lambda: 0 < len(rates := values(page, "learning_rate")) < 40 and max(rates) < 4e-3,
        30,
        "only the lower half of the learning rates",
    )
    page.locator("#rates").scroll_into_view_if_needed()
    until(page, f"{HIGHEST} < 4e-3")  # the plots too
    page.reload()  # the address keeps it
    until(page, "document.getElementById('rates').data !== undefined")
    until(page, f"{HIGHEST} < 4e-3")
    assert "brush=learning_rate" in page.url
    chip.click()
    wait_for(lambda: len(values(page, "learning_rate")) == 40, 30, "all trials again")
    page.locator("#rates").scroll_into_view_if_needed()
    until(page, f"{HIGHEST} > 4e-3")
    assert "brush" not in page.url


def test_a_page_that_was_opened_before_the_first_trial_can_be_brushed(
    open_page: OpenPage, server: Server
) -> None:
    page = open_page("/studies/young")
    until(page, DRAWN)
    assert page.inner_text("#parallel") == "Known after the first complete trial"
    fill_more(f"sqlite:///{server.home.parent / 'filled.db'}", YOUNG, range(12))
    page.locator("#parallel").scroll_into_view_if_needed()
    until(page, "document.getElementById('parallel').layout.dragmode === 'select'")
    wait_for(lambda: len(values(page, "learning_rate")) == 12, 30, "the trials in the table")
    draw_box(page, 0.01, 0.5, 0.15, 0.98)
    page.get_by_role("button", name="Show all values of learning_rate again").wait_for()
    wait_for(lambda: 0 < len(values(page, "learning_rate")) < 12, 30, "the brushed trials")


def test_the_good_trials_alone_are_shown(open_page: OpenPage) -> None:
    page = open_page("/studies/filled")
    wait_for(lambda: len(values(page, "validation loss")) == 40, 30, "the table")
    worst = max(values(page, "validation loss"))
    draw_box(page, 0.85, 0.6, 0.99, 0.99)
    chip = page.get_by_role("button", name="Show all values of validation loss again")
    chip.wait_for()
    wait_for(lambda: 0 < len(values(page, "validation loss")) < 40, 30, "the good trials")
    limit = float(chip.inner_text().split()[-2])
    assert chip.inner_text() == f"validation loss: up to {limit:g} ✕"
    assert max(values(page, "validation loss")) <= limit < worst
    page.locator("#slices").scroll_into_view_if_needed()
    until(page, f"{LOSSES}.length > 0 && Math.max(...{LOSSES}) <= {limit}")
    page.locator("#parallel").scroll_into_view_if_needed()
    form = page.get_by_role("form", name="Which trials are shown")
    form.locator("[name=high]").fill("2.2")
    form.locator("[name=high]").press("Enter")
    wait_for(lambda: 0 < max(values(page, "validation loss")) <= 2.2, 30, "the better ones")
    assert page.url.endswith("?brush=validation_loss%3A%3A2.2")


def test_a_phone_shows_what_is_brushed_and_takes_it_away(open_page: OpenPage) -> None:
    page = open_page("/studies/filled?brush=learning_rate::0.004", PHONE)
    assert page.evaluate("matchMedia('(pointer: coarse)').matches")
    chip = page.get_by_role("button", name="Show all values of learning_rate again")
    assert chip.inner_text() == "learning_rate: up to 0.004 ✕"
    wait_for(lambda: 0 < len(values(page, "learning_rate")) < 40, 30, "the brushed trials")
    assert max(values(page, "learning_rate")) <= 4e-3
    chip.tap()
    wait_for(lambda: len(values(page, "learning_rate")) == 40, 30, "all trials again")
    form = page.get_by_role("form", name="Which trials are shown")
    form.locator("[name=axis]").select_option("dropout")
    form.locator("[name=low]").fill("0.25")
    form.get_by_role("button", name="Filter").tap()
    page.wait_for_selector("#brushes >> text=dropout: from 0.25")
    wait_for(lambda: 0 < len(values(page, "dropout")) < 40, 30, "the filtered trials")
    assert min(values(page, "dropout")) >= 0.25
    assert page.url.endswith("?brush=dropout%3A0.25%3A")


def test_trials_are_filtered_by_keyboard(open_page: OpenPage) -> None:
    nothing = ("learning_rate:0:x", "learning_rate:%25:1", "learning_rate:0", "other:0:1")
    page = open_page(f"/studies/filled?{'&'.join(f'brush={said}' for said in nothing)}")
    form = page.get_by_role("form", name="Which trials are shown")
    form.locator("[name=axis]").select_option("regularizer")
    form.locator("[name=choice]").select_option("l1")
    form.get_by_role("button", name="Filter").press("Enter")
    chip = page.get_by_role("button", name="Show all values of regularizer again")
    assert chip.inner_text() == "regularizer: l1 ✕"
    wait_for(lambda: set(cells(page, "regularizer")) == {"l1"}, 30, "the trials with l1")
    assert page.locator("#brushes button").count() == 1
    chip.press("Enter")
    wait_for(lambda: len(cells(page, "regularizer")) == 40, 30, "all trials again")
    assert form.locator("[name=axis]").evaluate("field => field === document.activeElement")
    assert "brush" not in page.url
