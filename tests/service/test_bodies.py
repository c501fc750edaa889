"""A body that is too large is refused before it is read; a thousand reports are not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.routes.bodies import MAX_BODY
from studies.wire import MAX_ITEMS
from tests.service.live import Live


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with Live("", tmp_path_factory.mktemp("bodies")) as live:
        yield live


def pieces(size: int) -> Iterator[bytes]:
    for _ in range(size >> 16):
        yield b" " * (1 << 16)


@pytest.mark.parametrize(
    "path", ["/api/v1/studies", "/api/v1/workers", "/api/v1/trials/1/attempts/1/reports"]
)
@pytest.mark.parametrize("chunked", [False, True])
def test_more_than_a_mebibyte_is_too_large(live: Live, path: str, chunked: bool) -> None:
    content = pieces(2 * MAX_BODY) if chunked else b" " * (MAX_BODY + 1)
    headers = {"content-type": "application/json"}
    answer = live.api.post(f"/api/v1/{path}", content=content, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_who_has_no_token_learns_only_that(live: Live) -> None:
    answer = live.http.post("/api/v1/studies", content=b" " * (MAX_BODY + 1))
    assert answer.status_code == 401


@pytest.mark.parametrize("chunked", [False, True])
def test_a_thousand_reports_fit(live: Live, chunked: bool) -> None:
    names = ("validation_loss", "bits_per_byte", "perplexity", "train_loss", "tokens_per_second")
    metrics = dict.fromkeys(names, 1.2345678901234567)
    item = {"step": 1_000_000, "metrics": metrics, "tokens": 10**12, "wall_ms": 10**10}
    body = json.dumps({"items": [item] * MAX_ITEMS}).encode()
    headers = {"content-type": "application/json", "lmtune-lease": "0" * 32}
    content = iter([body[:1_000], body[1_000:]]) if chunked else body
    answer = live.api.post("/api/v1/trials/1/attempts/1/reports", content=content, headers=headers)
    assert answer.status_code == 404, answer.text  # read, understood, and of no trial


def test_a_text_may_be_larger(live: Live, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("a" * (2 * MAX_BODY))
    assert live.client.data.add(tmp_path / "text").bytes == 2 * MAX_BODY
