"""What people do on the pages, in a real browser, on finished trials: no worker trains."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from studies.wire import PROTOCOL
from tests.acceptance.drawn import DRAWN, quiet_tab, until
from tests.benchmarks._fill import fill, study_file
from tests.harness.lmtune import Server
from tests.harness.process import wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

pytestmark = pytest.mark.browser
SEARCH = {
    "learning_rate": {"log": [1e-4, 1e-1]},
    "dropout": {"uniform": [0.0, 0.5]},
    "regularizer": {"choice": ["none", "l2"]},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a running study of forty finished trials."""
    folder = tmp_path_factory.mktemp("pages")
    url = f"sqlite:///{folder / 'filled.db'}"
    fill(url, {**study_file("filled", "random", 10), "search": SEARCH}, 40)
    server = Server(folder / "server", url, {})
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def tab(browser: Browser, server: Server) -> Iterator[Page]:
    """One tab for all tests."""
    with quiet_tab(browser, server) as page:
        yield page


@pytest.fixture
def page(tab: Page, server: Server) -> Page:
    """The study's page."""
    tab.goto(f"{server.url}/studies/filled")
    tab.wait_for_selector("#live[data-state=live]")
    return tab


def test_an_enqueued_configuration_waits_and_a_wrong_one_is_refused_at_its_field(
    page: Page, server: Server
) -> None:
    page.get_by_role("button", name="Enqueue").click()
    dialog = page.get_by_role("dialog")
    rate = dialog.get_by_label("learning_rate")
    rate.fill("7")
    dialog.get_by_role("button", name="Enqueue").click()
    page.wait_for_selector(".wrong >> text=7.0 is outside [0.0001, 0.1]")
    assert rate.get_attribute("aria-invalid") == "true"
    rate.fill("0.0123")
    dialog.get_by_label("regularizer").select_option("none")
    rate.press("Enter")
    page.wait_for_selector("#toasts >> text=waits for a worker")
    page.wait_for_selector("#happened >> text=learning_rate 0.0123")
    waiting = list(server.client.studies.trials("filled", "WAITING"))  # type: ignore[arg-type]
    assert [t.params["regularizer"] for t in waiting] == ["none"]


def test_rows_are_those_asked_for_last(page: Page) -> None:
    held: list[Route] = []
    page.route("**/table?sort=number*", lambda route: held.append(route))
    page.locator("[id='sort number']").click()
    page.wait_for_selector("#trials[aria-busy=true]")
    page.get_by_role("button", name="validation loss").click()
    page.wait_for_selector(
        "#trials[aria-busy=false] th[aria-sort=ascending] >> text=validation loss"
    )
    first = page.locator("#trials tbody tr").first
    assert first.locator("td").nth(3).inner_text().startswith("★")
    with page.expect_response("**/table?sort=number*"):
        held[0].continue_()
    page.wait_for_timeout(300)  # the late answer is there
    assert first.locator("td").nth(3).inner_text().startswith("★")
    assert page.locator("#trials th[aria-sort=ascending]").inner_text() == "validation loss"
    page.unroute("**/table?sort=number*")
    first.locator("a").click()
    page.wait_for_url("**/studies/filled/trials/*")
    assert page.inner_text("h1").endswith("best")


def test_a_click_that_lasts_while_the_table_is_drawn_anew_is_heard(
    page: Page, server: Server
) -> None:
    until(page, DRAWN)  # and nothing moves any more
    page.locator("#trials tbody tr a").first.hover()
    page.mouse.down()
    assert page.locator("#trials a:active").count() == 1
    with page.expect_response("**/studies/filled"):
        server.client.studies.enqueue("filled", {"learning_rate": 0.0321})
    page.wait_for_timeout(300)  # were nothing held down, the rows would be others by now
    page.mouse.up()
    page.wait_for_url("**/studies/filled/trials/*")


def test_the_heading_tells_the_order_of_the_rows_that_are_shown(page: Page) -> None:
    held: list[Route] = []
    page.route("**/table?sort=value*", lambda route: held.append(route))
    page.get_by_role("button", name="validation loss").click()
    page.wait_for_selector("#trials[aria-busy=true]")
    page.get_by_label("Compare trial 7", exact=True).check()  # draws the table anew
    assert page.get_attribute("#trials", "aria-busy") == "true"
    assert page.locator("#trials th[aria-sort=descending]").inner_text() == "Trial"
    held[0].continue_()
    page.wait_for_selector(
        "#trials[aria-busy=false] th[aria-sort=ascending] >> text=validation loss"
    )
    page.unroute("**/table?sort=value*")


def test_rows_stay_where_their_order_cannot_be_had(page: Page) -> None:
    page.route("**/table?sort=value*", lambda route: route.fulfill(status=200, body="no JSON"))
    button = page.get_by_role("button", name="validation loss")
    button.click()
    page.wait_for_selector("#toasts >> text=JSON")
    assert page.get_attribute("#trials", "aria-busy") == "false"
    assert page.locator("#trials th[aria-sort=descending]").inner_text() == "Trial"
    page.unroute("**/table?sort=value*")
    button.click()  # asks for the same again, not for its reverse
    page.wait_for_selector("#trials th[aria-sort=ascending] >> text=validation loss")


def test_trials_are_ticked_in_the_table_and_compared(page: Page) -> None:
    for number in (7, 21, 33):
        page.get_by_label(f"Compare trial {number}", exact=True).check()
    assert page.url.endswith("?pick=7,21,33")
    page.reload()  # the address keeps the choice
    page.wait_for_selector("text=Compare 3 trials")
    page.get_by_label("Compare trial 21", exact=True).uncheck()
    page.get_by_role("link", name="Compare 2 trials").click()
    page.wait_for_url("**/studies/filled/compare?trials=7,33")
    until(page, "document.getElementById('compared').data?.length === 2")
    differing = page.locator("tr.differs th").all_inner_texts()
    assert {"learning_rate", "dropout"} <= set(differing)
    page.get_by_role("link", name="Trial 33").click()
    page.wait_for_url("**/studies/filled/trials/33")


def test_a_trial_is_run_again_forked_and_cancelled(page: Page, server: Server) -> None:
    trials = server.client.studies
    first, count = trials.trial("filled", 3), len(list(trials.trials("filled")))
    page.goto(f"{server.url}/studies/filled/trials/3")
    assert "of 40 complete" in page.inner_text("#facts")
    assert "trained to its end" in page.inner_text("#reason")
    page.get_by_role("button", name="Rerun").click()
    page.wait_for_selector(f"text=Trial {count} waits")
    again = trials.trial("filled", count).params
    assert {name: again[name] for name in first.params} == first.params
    page.get_by_role("button", name="Fork").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("dropout").fill("0.25")
    dialog.get_by_role("button", name="Enqueue").click()
    page.wait_for_selector(f"text=Trial {count + 1} waits")
    forked = trials.trial("filled", count + 1).params
    assert (forked["dropout"], forked["learning_rate"]) == (0.25, first.params["learning_rate"])
    page.goto(f"{server.url}/studies/filled/trials/{count}")
    page.get_by_role("button", name="Cancel the trial").click()
    page.get_by_role("dialog").get_by_role("button", name="Keep going").click()
    assert trials.trial("filled", count).state == "WAITING"
    page.get_by_role("button", name="Cancel the trial").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the trial").click()
    page.wait_for_selector("#state .cancelled")
    assert trials.trial("filled", count).state == "CANCELLED"


def test_a_study_is_written_in_the_form(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/new")
    page.wait_for_selector("#cost >> text=16 trials, at most 65,536,000 tokens: about")
    assert page.locator("[data-preview=learning_rate] rect").count() == 12
    page.get_by_label("Name", exact=True).fill("written")
    page.get_by_label("How dropout is chosen").select_option("uniform")
    page.get_by_label("dropout from", exact=True).fill("0")
    page.get_by_label("dropout to", exact=True).fill("0.4")
    assert page.locator("#notes li").count() == 0
    page.get_by_label("How momentum is chosen").select_option("uniform")
    page.wait_for_selector("#notes >> text=momentum: changes nothing while optimizer is adamw")
    page.get_by_label("How momentum is chosen").select_option("fixed")
    page.wait_for_selector("#notes li", state="detached")
    slider = page.get_by_label("learning_rate to, by slider")
    slider.focus()
    assert slider.get_attribute("aria-valuetext") == "0.1"
    slider.press("ArrowLeft")
    end = page.get_by_label("learning_rate to", exact=True).input_value()
    assert slider.get_attribute("aria-valuetext") == end != "0.1"
    steps = page.locator("[name='train.steps']")
    steps.fill("0")
    page.get_by_role("button", name="Create the study").click()
    page.wait_for_selector(".wrong >> text=0 does not fit")
    assert steps.get_attribute("aria-invalid") == "true"
    steps.fill("200")
    assert steps.get_attribute("aria-invalid") is None
    assert page.locator(".wrong").count() == 0
    page.wait_for_selector("#cost >> text=at most 13,107,200 tokens")
    assert "uniform:" in page.input_value("#file-text")
    page.get_by_role("button", name="Create the study").click()
    page.wait_for_url("**/studies/written", wait_until="commit")
    spec = server.client.studies.get("written").spec
    assert spec["train"] == {"steps": 200}
    assert spec["search"]["dropout"] == {"uniform": [0.0, 0.4]}
    assert 0.01 < spec["search"]["learning_rate"]["log"][1] < 0.1  # a step of the slider


def test_a_study_comes_from_a_file_from_another_or_from_the_catalog(
    page: Page, server: Server, tmp_path: Path
) -> None:
    page.goto(f"{server.url}/new?ready=quickstart")
    file = page.get_by_label("The study file")
    wait_for(lambda: "regularizer" in file.input_value(), 60, "the draft of a ready study")
    page.goto(f"{server.url}/new?like=filled")
    wait_for(lambda: "name: filled-2" in file.input_value(), 60, "the draft of a clone")
    (tmp_path / "mine.txt").write_text("A text of one's own. " * 2_000)
    page.get_by_label("Upload a text").set_input_files(tmp_path / "mine.txt")
    page.wait_for_selector("#toasts >> text=Uploaded mine.txt")
    wait_for(lambda: "sha256: " in file.input_value(), 60, "the uploaded text")
    text = file.input_value()
    file.fill(f"{text}\nsampler: x")
    page.get_by_role("button", name="Create from the file").click()
    page.wait_for_selector(".wrong >> text=stands twice")
    file.fill(text.replace("filled-2", "pasted").replace("steps: 10", "steps: 7"))
    page.get_by_role("button", name="Take into the form").click()
    wait_for(lambda: page.input_value("[name='train.steps']") == "7", 60, "the filled form")
    assert page.get_by_label("Name", exact=True).input_value() == "pasted"
    page.get_by_role("button", name="Create from the file").click()
    page.wait_for_url("**/studies/pasted", wait_until="commit")
    assert "sha256" in server.client.studies.get("pasted").spec["data"]


def test_a_worker_is_drained_and_readmitted(page: Page, server: Server) -> None:
    http = server.client.http
    said = {"name": "gpu-7", "host": "node", "pid": 4_711, "device": "cuda A", "code_hash": "c"}
    http.post("/workers", {**said, "protocol": PROTOCOL})
    page.goto(f"{server.url}/workers")
    page.wait_for_selector("#present >> text=cuda A")
    assert f"lmtune-worker --server {server.url}" in page.inner_text("#start-worker")
    page.get_by_role("button", name="Drain gpu-7").click()
    page.get_by_role("dialog").get_by_role("button", name="Drain").click()
    page.wait_for_selector("#present .draining")
    assert [w.draining for w in server.client.workers() if w.name == "gpu-7"] == [True]
    page.get_by_role("button", name="Readmit gpu-7").click()
    page.wait_for_selector("#present .draining", state="detached")
    page.get_by_role("link", name="Log of gpu-7").click()
    page.wait_for_selector("#log >> text=this server did not start the worker")


def test_a_study_is_given_another_budget_and_a_narrower_space(page: Page, server: Server) -> None:
    page.get_by_role("button", name="Budget").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Trials").fill("1")
    dialog.get_by_role("button", name="Change").click()
    page.wait_for_selector(".wrong >> text=trials are there already")
    dialog.get_by_label("Trials").fill("600")
    dialog.get_by_label("Wall time").fill("5h")
    dialog.get_by_label("Workers").fill("3")
    dialog.get_by_role("button", name="Change").click()
    page.wait_for_selector("#toasts >> text=of the 3 workers that it may have")
    page.wait_for_selector("#facts >> text=of 600")
    assert "of at most 3" in page.inner_text("#facts")
    assert page.get_attribute("#short a", "href") == "/workers#start-title"
    page.get_by_role("button", name="Narrow").click()
    dialog.get_by_label("to").first.fill("0.02")
    dialog.get_by_label("l2").uncheck()
    dialog.get_by_role("button", name="Narrow").click()
    page.wait_for_selector("#happened >> text=learning_rate [0.0001, 0.1] → [0.0001, 0.02]")
    spec = server.client.studies.get("filled").spec
    assert spec["budget"] == {"trials": 600, "wall_time": 18_000.0}
    assert spec["resources"] == {"workers": 3}
    assert spec["search"]["learning_rate"] == {"log": [0.0001, 0.02]}
    assert spec["search"]["regularizer"] == {"choice": ["none"]}
