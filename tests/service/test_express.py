"""Plain reports and heartbeats take a short way; it answers exactly as the routes do."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from service.routes.express import Express
from studies import wire
from studies.client import Attempt
from tests.service.live import Live
from tests.service.world import items, spec

PLAIN = "application/json"
BY_THE_ROUTES = "application/json; charset=utf-8"  # the same to them, not plain to the short way


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with Live("", tmp_path_factory.mktemp("express")) as live:
        live.client.studies.create(spec("study", budget={"trials": 100}))
        yield live


def claimed(live: Live) -> Attempt:
    name, token = secrets.token_hex(8), secrets.token_hex(16)
    worker = live.workers.register(
        wire.RegisterBody(name=name, host="b", pid=1, device="cpu", protocol=1, code_hash="c")
    )
    body = wire.ClaimBody(seq=1, lease_token=token, protocol=1, code_hash="c")
    grant = live.workers.claim(worker.worker_id, body).grant
    assert grant is not None
    return live.workers.attempt(grant, token)


def report(step: int, loss: Any = 1.0, **more: Any) -> dict[str, Any]:
    return {"items": [{"step": step, "metrics": {"validation_loss": loss}, **more}]}


# Each is sent to a new trial, in this order: (path, body, headers that replace ours)
CALLS: list[tuple[str, Any, dict[str, str]]] = [
    ("heartbeat", {"step": 0, "environment": {"device": "cpu"}}, {}),
    ("heartbeat", {"step": -1}, {}),
    ("reports", report(10), {}),
    ("reports", report(10), {}),  # a duplicate
    ("reports", report(10, 2.0), {}),  # another report at its step
    ("reports", report(5), {}),  # backwards
    ("reports", report(20, "NaN", tokens=5, wall_ms=7), {}),
    ("reports", report(25, "infinite"), {}),
    ("reports", report(99), {}),  # beyond the end
    ("reports", {"items": [{"step": 26, "metrics": {"other": 1.0}}]}, {}),
    ("reports", {"items": []}, {}),
    ("reports", {"items": [{"step": 27}], "more": 1}, {}),
    ("reports", report(28), {wire.LEASE_HEADER: "f" * 32}),  # somebody else
    ("reports", report(28), {wire.LEASE_HEADER: ""}),
    ("reports", b"{", {}),
    ("reports", b"", {}),
    ("reports", b"\xff\xfe", {}),
    ("reports", "[1, 2]", {}),
    ("heartbeat", {"step": 28}, {}),
    ("reports", report(30), {}),
    ("reports", report(30), {}),
]


def sent(live: Live, attempt: Attempt, content_type: str) -> list[tuple[int, Any, dict[str, str]]]:
    grant = attempt.grant
    base = f"/api/v1/trials/{grant.trial_id}/attempts/{grant.attempt}"
    answers = []
    for path, body, replaced in CALLS:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"content-type": content_type, **attempt._headers, **replaced}
        answer = live.api.post(f"{base}/{path}", content=content, headers=headers)
        said = {k: v for k, v in answer.headers.items() if k != "date"}
        answers.append((answer.status_code, answer.text, said))
    return answers


def test_both_ways_answer_alike(live: Live) -> None:
    short, long = sent(live, claimed(live), PLAIN), sent(live, claimed(live), BY_THE_ROUTES)
    assert short == long
    assert {status for status, _, _ in short} == {200, 409, 422}


def test_the_workers_client_takes_the_short_way(live: Live, monkeypatch) -> None:
    attempt = claimed(live)

    async def routes(scope, receive, send) -> None:
        raise AssertionError(f"{scope['path']} went to the routes")

    lane = next(_chain(live.app.middleware_stack, Express))
    monkeypatch.setattr(lane, "_app", routes)
    assert attempt.heartbeat(3).decision == "continue"
    answer = attempt.report(items((10, 1.0)))
    assert (answer.accepted_through, answer.duplicate) == (10, False)


def _chain(app: Any, kind: type) -> Iterator[Any]:
    while app is not None:
        if isinstance(app, kind):
            yield app
        app = getattr(app, "app", None) or getattr(app, "_app", None)


@pytest.mark.parametrize(
    ("trial", "attempt"),
    [("0", "1"), ("999999", "1"), ("9" * 19, "1"), ("1", "9" * 10), ("-1", "1"), ("1", "x")],
)
def test_odd_paths_are_answered_by_the_routes_as_ever(live: Live, trial, attempt) -> None:
    path = f"/api/v1/trials/{trial}/attempts/{attempt}/reports"
    answer = live.api.post(path, json=report(10), headers={wire.LEASE_HEADER: "f" * 32})
    assert answer.status_code in (404, 409, 422)
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_body_in_pieces_arrives_whole(live: Live) -> None:
    attempt = claimed(live)
    body = json.dumps(report(10)).encode()

    def pieces() -> Iterator[bytes]:
        yield body[:7]
        yield body[7:]

    grant = attempt.grant
    answer = live.api.post(
        f"/api/v1/trials/{grant.trial_id}/attempts/{grant.attempt}/reports",
        content=pieces(),
        headers={"content-type": PLAIN, **attempt._headers},
    )
    assert answer.json()["accepted_through"] == 10


def test_a_stranger_gets_nowhere(live: Live) -> None:
    path = "/api/v1/trials/1/attempts/1/reports"
    answer = httpx.post(live.url + path, json=report(10), headers={wire.LEASE_HEADER: "f" * 32})
    assert answer.status_code == 401
