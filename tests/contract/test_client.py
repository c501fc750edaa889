"""The people's client and the server agree: studies, trials, texts and pages over a real socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from studies.client import Client
from studies.errors import Conflict, DuplicateName, InvalidInput, NotFound, ServerUnreachable
from studies.trial import TrialState
from tests.service.live import Live
from tests.service.world import spec

TEXT = b"A text to train on, long enough for a batch or two. " * 400


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with Live("", tmp_path_factory.mktemp("client")) as live:
        yield live


def test_a_study_is_made_steered_and_archived(live: Live) -> None:
    studies = live.client.studies
    made = studies.create(spec("steered", budget={"trials": 3}))
    assert (made.name, made.state, made.slots, made.best) == ("steered", "RUNNING", 0, None)
    assert made.spec["sampler"] == {"kind": "random", "seed": 7}
    with pytest.raises(DuplicateName):
        studies.create(spec("steered"))
    for action, state, reason in (
        ("pause", "PAUSED", "person"),
        ("resume", "RUNNING", None),
        ("stop", "ENDED", "stopped"),
    ):
        view = studies.act("steered", action)
        assert (view.state, view.reason) == (state, reason)
        assert view.revision > made.revision
    with pytest.raises(Conflict):
        studies.act("steered", "resume")
    assert studies.act("steered", "archive").archived
    assert "steered" not in [view.name for view in studies.list()]
    assert "steered" in [view.name for view in studies.list(archived=True)]
    assert not studies.act("steered", "unarchive").archived


def test_a_report_is_a_page_of_its_own(live: Live) -> None:
    live.client.studies.create(spec("reported"))
    page = live.client.studies.report("reported")
    assert page.startswith("<!doctype html>")
    assert "<h1>reported</h1>" in page
    assert "<h1>reported</h1>" in live.api.get("/studies/reported/report").text
    with pytest.raises(NotFound):
        live.client.studies.report("none")


def test_a_checkpoint_that_is_not_there_leaves_no_file(live: Live, tmp_path: Path) -> None:
    studies = live.client.studies
    studies.create(spec("unfinished"))
    studies.enqueue("unfinished", {})
    for number, message in ((0, "keeps no checkpoint"), (1, "has no trial 1")):
        with pytest.raises(NotFound, match=message):
            studies.checkpoint("unfinished", number, tmp_path / "best")
    assert list(tmp_path.iterdir()) == []


def test_trials_come_in_pages_and_by_state(live: Live) -> None:
    studies = live.client.studies
    studies.create(spec("paged", budget={"trials": 9}))
    for _ in range(7):
        studies.enqueue("paged", {})
    studies.cancel("paged", 3)
    assert [view.number for view in studies.trials("paged")] == list(range(7))
    waiting = [view.number for view in studies.trials("paged", TrialState.WAITING)]
    assert waiting == [0, 1, 2, 4, 5, 6]
    numbers, cursor = [], None
    while True:
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = live.api.get("/api/v1/studies/paged/trials", params=params).json()
        assert len(page["items"]) <= 2
        numbers += [item["number"] for item in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert numbers == list(range(7))
    assert studies.get("paged").counts == {"WAITING": 6, "CANCELLED": 1}


def test_studies_come_in_pages_the_newest_first(live: Live) -> None:
    for name in ("p1", "p2", "p3"):
        live.client.studies.create(spec(name))
    first = live.api.get("/api/v1/studies", params={"limit": 2}).json()
    assert [item["name"] for item in first["items"]] == ["p3", "p2"]
    second = live.api.get("/api/v1/studies", params={"limit": 2, "cursor": first["next"]}).json()
    assert second["items"][0]["name"] == "p1"
    assert {"p1", "p2", "p3"} <= {view.name for view in live.client.studies.list()}


def test_a_text_is_uploaded_with_its_study_and_comes_back_whole(live: Live, tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_bytes(TEXT)
    wanted = spec("texted", data={"path": "corpus.txt"})
    made = live.client.studies.create(wanted, base=tmp_path)
    digest = made.spec["data"]["sha256"]
    assert "path" not in made.spec["data"]
    assert digest == live.client.data.add(tmp_path / "corpus.txt").sha256
    (held,) = [view for view in live.client.data.list() if view.sha256 == digest]
    assert (held.name, held.bytes) == ("corpus.txt", len(TEXT))
    assert live.workers.download_data(digest, tmp_path / "down") == digest
    assert (tmp_path / "down").read_bytes() == TEXT


def test_a_folder_of_splits_is_uploaded_as_one_text_with_its_cuts(
    live: Live, tmp_path: Path
) -> None:
    parts = {"train.txt": TEXT, "valid.txt": b"to be or not", "test.txt": b"that is"}
    for name, content in parts.items():
        (tmp_path / name).write_bytes(content)
    made = live.client.studies.create(spec("split", data={"path": "."}), base=tmp_path)
    said = made.spec["data"]
    assert (said["validation_at"], said["test_at"]) == (len(TEXT), len(TEXT) + 12)
    live.workers.download_data(said["sha256"], tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == b"".join(parts.values())


def test_a_text_that_is_missing_makes_no_study(live: Live, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"data\.path: .*No such file"):
        live.client.studies.create(spec("untexted", data={"path": "none.txt"}), base=tmp_path)
    with pytest.raises(NotFound):
        live.client.studies.get("untexted")


def test_a_server_that_is_not_there_is_said() -> None:
    client = Client("http://127.0.0.1:1", "lmt_x")
    assert not client.http.ready
    with pytest.raises(ServerUnreachable, match="no answer from"):
        client.studies.get("x")
    client.http.close()


def test_a_change_is_told_as_it_happens(live: Live) -> None:
    live.client.studies.create(spec("watched"))
    states: list[str] = []
    with live.api.stream("GET", "/api/v1/studies/watched/events") as stream:
        for line in stream.iter_lines():
            if line.startswith("data:"):
                states.append(json.loads(line.removeprefix("data:"))["state"])
                if len(states) == 1:
                    live.client.studies.act("watched", "pause")
            if states[-1:] == ["PAUSED"]:
                break
    assert states == ["RUNNING", "PAUSED"]
