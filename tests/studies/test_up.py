"""Which study `lmtune up` goes on with, and what it says of its server."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import yaml

from studies.cli.serving import LocalServer
from studies.cli.sources import Source, open_source
from studies.cli.up import _names, _open_study
from studies.client import Client
from studies.trial import StudyState
from tests.studies.documents import small
from tests.studies.fake import FakeServer


@pytest.fixture
def client(fake: FakeServer) -> Iterator[Client]:
    client = Client()
    yield client
    client.http.close()


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """A study on a text beside it."""
    (tmp_path / "corpus.txt").write_text("a text that is long enough for a batch " * 9)
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(small(data={"path": "corpus.txt"})))
    return open_source(str(path))


def test_a_study_is_made_once_and_gone_on_with(
    fake: FakeServer, client: Client, source: Source
) -> None:
    assert _open_study(client, source).name == "small"
    assert _open_study(client, source).name == "small"
    assert list(fake.studies) == ["small"]


def test_a_paused_study_is_resumed(fake: FakeServer, client: Client, source: Source) -> None:
    _open_study(client, source)
    fake.change("small", state=StudyState.PAUSED)
    assert _open_study(client, source).state is StudyState.RUNNING


def test_an_ended_study_stays_and_the_next_gets_a_number(
    fake: FakeServer, client: Client, source: Source
) -> None:
    _open_study(client, source)
    fake.change("small", state=StudyState.ENDED)
    assert _open_study(client, source).name == "small-2"
    assert _open_study(client, source).name == "small-2"
    fake.change("small-2", state=StudyState.ENDED)
    assert _open_study(client, source).name == "small-3"


def test_another_study_or_text_of_the_same_name_gets_a_number(
    fake: FakeServer, client: Client, source: Source
) -> None:
    _open_study(client, source)
    (source.base / "corpus.txt").write_text("another text, long enough for a batch as well " * 9)
    assert _open_study(client, source).name == "small-2"
    path = source.base / "study.yaml"
    path.write_text(yaml.safe_dump(small(data={"path": "corpus.txt"}, train__steps=5)))
    assert _open_study(client, open_source(str(path))).name == "small-3"


def test_defaults_may_be_written_out_and_left_out(client: Client, source: Source) -> None:
    _open_study(client, source)
    path = source.base / "study.yaml"
    said = small(data={"path": "corpus.txt"}, train__optimizer="adamw", sampler={"kind": "tpe"})
    path.write_text(yaml.safe_dump(said))
    assert _open_study(client, open_source(str(path))).name == "small"


def test_a_long_name_leaves_room_for_its_number() -> None:
    assert list(islice(_names("x" * 64), 3)) == ["x" * 64, "x" * 62 + "-2", "x" * 62 + "-3"]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            "postgresql+psycopg://u:secret@h:5432/d?sslmode=require",
            "postgresql+psycopg://u@h:5432/d",
        ),
        ("postgresql+psycopg:///d?password=secret", "postgresql+psycopg:///d"),
        ("sqlite:////data/a.db", "sqlite:////data/a.db"),
    ],
)
def test_the_database_is_shown_without_its_password(
    monkeypatch: pytest.MonkeyPatch, home: Path, url: str, shown: str
) -> None:
    assert LocalServer(None, None, None).database == f"sqlite:///{home / 'lmtune.db'}"
    monkeypatch.setenv("LMTUNE_DATABASE_URL", url)
    assert LocalServer(None, None, None).database == shown
