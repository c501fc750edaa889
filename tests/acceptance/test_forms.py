"""The form of a new study in a real browser: what it is filled with is what it sends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from safetensors.torch import load_file

from studies.spec import parse_spec
from tests.acceptance.drawn import quiet_tab
from tests.acceptance.tiny import TEXT
from tests.harness.lmtune import Server
from tests.harness.process import ROOT, wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = pytest.mark.browser
SCRIPT = ROOT / "studies" / "examples" / "pytorch_script.yaml"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server without studies, and without a worker."""
    server = Server(tmp_path_factory.mktemp("forms") / "server", "", {})
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def page(browser: Browser, server: Server) -> Iterator[Page]:
    """One tab for all tests."""
    with quiet_tab(browser, server) as page:
        yield page


@pytest.fixture
def file(page: Page, server: Server) -> Locator:
    """The study file beside the form of a new study, which says by now what the form says."""
    page.goto(f"{server.url}/new")
    file = page.get_by_label("The study file")
    drafted(file, "name: new-study")
    return file


def drafted(file: Locator, part: str) -> dict:
    """Returns the draft once it has that part."""
    wait_for(lambda: part in file.input_value(), 60, f"{part} in the draft")
    return yaml.safe_load(file.input_value())


def take(file: Locator, document: dict) -> dict:
    """Takes a study file into the form; returns the draft that the form then makes of it."""
    file.fill(f"# pasted\n{yaml.safe_dump(document)}")
    file.page.get_by_role("button", name="Take into the form").click()
    wait_for(lambda: "# pasted" not in file.input_value(), 60, "the draft of the filled form")
    return yaml.safe_load(file.input_value())


TINY = {
    "model.embedding_dim": 8, "model.hidden_dim": 8, "train.steps": 20, "train.batch_size": 4,
    "train.sequence_length": 16, "train.evaluate_every": 10, "budget.trials": 2,
}  # fmt: skip


@pytest.mark.slow
def test_with_a_browser_alone_one_comes_from_a_text_to_weights(
    page: Page, server: Server, file: Locator, make_worker, tmp_path: Path
) -> None:
    make_worker(server)
    (tmp_path / "bottles.txt").write_text(TEXT)
    page.get_by_label("Name", exact=True).fill("mine")
    page.get_by_label("Upload a text").set_input_files(tmp_path / "bottles.txt")
    page.wait_for_selector("#toasts >> text=Uploaded bottles.txt")
    for name, value in TINY.items():
        page.locator(f"[name='{name}']").fill(str(value))
    page.get_by_role("button", name="Create the study").click()
    page.wait_for_url("**/studies/mine", wait_until="commit")
    page.wait_for_selector("#state .ended")
    with page.expect_download() as started:
        page.get_by_role("link", name="Checkpoint of step 20").click()
    best = server.client.studies.best("mine")
    assert started.value.suggested_filename == f"mine-{best.number}-20.safetensors"
    weights = load_file(started.value.path())
    assert {8} == {w.shape[1] for name, w in weights.items() if "embedding" in name}


def test_a_pasted_file_that_names_a_text_by_path_is_given_the_one_chosen(
    page: Page, server: Server, file: Locator, tmp_path: Path
) -> None:
    (tmp_path / "other.txt").write_text(TEXT * 2)
    page.get_by_label("Upload a text").set_input_files(tmp_path / "other.txt")
    sha256 = drafted(file, "sha256")["data"]["sha256"]
    pasted = {"name": "by-path", "data": {"path": "corpus.txt", "tokenizer": "characters"}}
    file.fill(yaml.safe_dump(pasted))
    page.get_by_role("button", name="Create from the file").click()
    page.wait_for_selector(".wrong >> text=choose the text there at “Upload a text of your own”")
    assert take(file, pasted)["data"] == {"sha256": sha256, "tokenizer": "characters"}
    page.wait_for_selector("#toasts >> text=upload corpus.txt")
    page.goto(f"{server.url}/new")  # the text is one of the server's now
    drafted(file, "name: new-study")
    named = {"name": "by-hash", "data": {"sha256": sha256}}
    assert take(file, named)["data"] == {"sha256": sha256}
    texts = len(server.client.data.list())
    assert page.locator("#data option").count() == texts + 1  # and the built-in one


def test_a_scripts_own_names_are_cloned_and_taken_from_a_file(
    page: Page, server: Server, file: Locator
) -> None:
    first = parse_spec(yaml.safe_load(SCRIPT.read_text())).document()
    first["search"]["cell"] = {"choice": ["gru", "a, b"]}  # which are two, not three
    server.client.studies.create(first)
    assert take(file, {**first, "name": "taken"}) == {**first, "name": "taken"}
    page.get_by_label("How units is chosen").select_option("left out")
    wait_for(lambda: "units" not in file.input_value(), 60, "a draft without units")
    page.goto(f"{server.url}/new?like=pytorch-script")
    clone = {**first, "name": "pytorch-script-2"}
    assert drafted(file, "name: pytorch-script-2") == clone
    page.get_by_label("units to", exact=True).fill("48")
    page.get_by_role("button", name="Create the study").click()
    page.wait_for_url("**/studies/pytorch-script-2", wait_until="commit")
    search = server.client.studies.get("pytorch-script-2").spec["search"]
    assert search == {**first["search"], "units": {"uniform": [16, 48], "step": 16}}


def test_a_grid_is_written_in_the_form_and_conditions_also_after_a_file_was_taken(
    page: Page, file: Locator
) -> None:
    said = {"data": {"builtin": "stdlib"}, "sampler": {"kind": "grid", "seed": 0}}
    search = {"lambda": {"log": [1e-6, 1e-2], "points": 3, "when": {"regularizer": ["l2"]}}}
    search["regularizer"] = {"choice": ["none", "l2"]}
    gridded = {"name": "gridded", **said, "search": search}
    assert take(file, gridded)["search"] == search
    slider = page.get_by_label("lambda to, by slider")
    assert slider.get_attribute("aria-valuetext") == "0.01"
    entry = page.locator("[data-knob=dropout]")
    page.get_by_label("How dropout is chosen").select_option("uniform")
    entry.get_by_label("dropout from", exact=True).fill("0")
    page.wait_for_selector("#cost >> text=the grid sampler needs points")
    entry.get_by_label("points").fill("4")
    entry.get_by_label("when").fill('{"regularizer": "none"}')
    wait_for(lambda: "when" in str(drafted(file, "dropout")["search"]["dropout"]), 60, "condition")
    dropout = drafted(file, "dropout")["search"]["dropout"]
    assert dropout == {"uniform": [0.0, 0.5], "points": 4, "when": {"regularizer": "none"}}
    assert take(file, {**gridded, "name": "again"})["search"] == search  # nothing is left behind
