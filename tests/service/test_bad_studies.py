"""A bad study is one clear 4xx problem and leaves nothing: no row of ours, none of Optuna's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import optuna
import pytest
import sqlalchemy as sa

from service.store.optuna_rows import open_storage
from service.store.tables import events, studies
from tests.service.live import Live
from tests.service.world import spec

BASE = "/api/v1/studies"


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]
)
def live(request, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgres").database()
    with Live(url, tmp_path_factory.mktemp("bad")) as live:
        live.client.studies.create(spec("taken", budget={"trials": 3}))
        yield live


def counted(live: Live) -> list[int]:
    """How many studies and events are there, and how many studies Optuna has."""
    theirs = sa.table("studies")

    def read(conn):
        return [
            conn.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
            for table in (studies, events, theirs)
        ]

    return live.parts.ctx.database.read(read)


def upload(live: Live, content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    answer = live.api.put(f"/api/v1/data/{digest}", params={"name": "a.txt"}, content=content)
    assert answer.status_code == 201, answer.text
    return digest


def bad(**parts) -> dict:
    """A good study with these parts replaced."""
    document = spec("bad").document()
    return {name: value for name, value in (document | parts).items() if value is not None}


RATE = {"log": [1e-4, 1e-1]}
BAD = {
    "no name": (bad(name=None), "name"),
    "a name with a slash": (bad(name="../bad"), "name"),
    "a long name": (bad(name="x" * 65), "name"),
    "no data": (bad(data=None), "data"),
    "two texts": (bad(data={"builtin": "stdlib", "sha256": "0" * 64}), "data"),
    "a path": (bad(data={"path": "corpus.txt"}), "data.path"),
    "a path of the server's": (bad(data={"path": "/etc/passwd"}), "data.path"),
    "an address": (bad(data={"path": "http://127.0.0.1/x"}), "data.path"),
    "a text nobody uploaded": (bad(data={"sha256": "0" * 64}), "data.sha256"),
    "an unknown section": (bad(serach={}), "serach"),
    "an unknown knob": (bad(search={"learning_rat": RATE}), "search.learning_rat"),
    "an unknown knob that is fixed": (bad(train={"stepz": 3}), "train.stepz"),
    "inverted bounds": (bad(search={"learning_rate": {"log": [0.1, 0.001]}}), "learning_rate"),
    "a log range at 0": (bad(search={"learning_rate": {"log": [0, 0.1]}}), "learning_rate"),
    "two kinds of range": (bad(search={"dropout": {"uniform": [0, 1], "log": [1, 2]}}), "dropout"),
    "bounds out of the knob": (bad(search={"dropout": {"uniform": [0, 2]}}), "search.dropout"),
    "a choice of nothing": (bad(search={"precision": {"choice": []}}), "search.precision"),
    "an unknown choice": (bad(search={"precision": {"choice": ["fp8"]}}), "search.precision"),
    "a condition in a circle": (
        bad(
            search={
                "regularizer": {"choice": ["none", "l1"], "when": {"precision": "fp32"}},
                "precision": {"choice": ["fp32", "bf16"], "when": {"regularizer": "l1"}},
            }
        ),
        "when",
    ),
    "λ without a regularizer": (bad(search={"lambda": {"log": [1e-8, 1e-2]}}), "search.lambda"),
    "a knob fixed and searched": (
        bad(train={"learning_rate": 0.1}, search={"learning_rate": RATE}),
        "search.learning_rate",
    ),
    "a grid without points": (bad(sampler={"kind": "grid"}), "search.learning_rate"),
    "an unknown sampler": (bad(sampler={"kind": "magic"}), "sampler.kind"),
    "a scheduler past the end": (
        bad(scheduler={"kind": "asha", "min_steps": 31}),
        "scheduler.min_steps",
    ),
    "no trial": (bad(budget={"trials": 0}), "budget.trials"),
    "no time": (bad(budget={"trials": 1, "wall_time": "0s"}), "budget.wall_time"),
    "heads that do not divide": (bad(model={"kind": "gpt", "heads": 3}), "heads"),
    "a text shorter than a batch": (bad(train={"batch_size": 1_000_000}), "data"),
    "not a number": (bad(train={"learning_rate": "NaN"}), "train.learning_rate"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_a_bad_study_is_one_problem_and_leaves_nothing(live: Live, case: str) -> None:
    document, field = BAD[case]
    before = counted(live)
    answer = live.api.post(BASE, json=document)
    said = answer.json()
    assert (answer.status_code, said["code"]) == (422, "invalid"), answer.text
    assert field in said["errors"][0]["field"], said
    assert said["errors"][0]["message"]
    assert "\n" not in said["detail"]
    assert counted(live) == before
    assert live.api.get(f"{BASE}/bad").status_code == 404


@pytest.mark.parametrize(
    ("content", "field"),
    [(b"", "data"), (b"too short", "data"), (b"\xff\xfe" * 9_000, "data"), (b"\n", "data")],
)
def test_a_text_that_cannot_be_trained_on_is_refused(live: Live, content, field) -> None:
    digest = upload(live, content)
    before = counted(live)
    answer = live.api.post(BASE, json=bad(data={"sha256": digest}))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert answer.json()["errors"][0]["field"].startswith(field)
    assert counted(live) == before


def test_a_checkpoint_is_no_text(live: Live) -> None:
    content = b"some weights " * 9_000
    digest = hashlib.sha256(content).hexdigest()
    assert live.api.put(f"/api/v1/blobs/{digest}", content=content).status_code == 204
    answer = live.api.post(BASE, json=bad(data={"sha256": digest}))
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "data.sha256")


def test_a_taken_name_is_a_duplicate_and_changes_nothing(live: Live) -> None:
    before = counted(live)
    answer = live.api.post(BASE, json=bad(name="taken"))
    assert (answer.status_code, answer.json()["code"]) == (409, "duplicate_name")
    assert counted(live) == before
    assert live.client.studies.get("taken").spec["budget"] == {"trials": 3}


def test_a_name_of_a_foreign_study_is_a_duplicate(live: Live) -> None:
    storage = open_storage(live.parts.ctx.database.url)
    optuna.create_study(study_name="foreign", storage=storage)
    storage.engine.dispose()
    answer = live.api.post(BASE, json=bad(name="foreign"))
    assert (answer.status_code, answer.json()["code"]) == (409, "duplicate_name")


def test_a_good_study_after_all_that_is_made(live: Live) -> None:
    text = upload(live, b"Some text to train on, long enough for a batch. " * 400)
    answer = live.api.post(BASE, json=bad(name="good", data={"sha256": text}))
    assert answer.status_code == 201
    assert answer.headers["location"] == f"{BASE}/good"
    assert answer.json()["state"] == "RUNNING"
