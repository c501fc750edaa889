"""Every error is one clear problem, whatever was sent; a defect tells nothing but its number."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator

import httpx
import pytest

from service.problems import Problem, status_of
from studies import errors
from tests.harness.routes import all_routes
from tests.service.live import Live
from tests.service.world import spec

HUGE = 10**30
CORE = {"type", "title", "status", "code", "detail", "errors"}


ON_POSTGRES = pytest.param("postgres", marks=[pytest.mark.slow, pytest.mark.postgres])


@pytest.fixture(scope="module", params=["sqlite", ON_POSTGRES])
def live(request, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgres").database()
    with Live(url, tmp_path_factory.mktemp("problems")) as live:
        live.client.studies.create(spec("study"))
        yield live


def problem(answer: httpx.Response) -> Problem:
    """The answer as a problem; fails where it is none."""
    assert answer.is_error, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert set(body) == CORE
    assert body["status"] == answer.status_code
    assert body["type"] == f"urn:lmtune:problem:{body['code']}"
    assert "Traceback" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    return Problem.model_validate(body)


BASE = "/api/v1/studies"


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "says"),
    [
        ("GET", "/api/v1/nope", 404, "not_found", "nothing at /api/v1/nope"),
        ("GET", f"{BASE}/nowhere", 404, "not_found", "no study named nowhere"),
        ("GET", f"{BASE}/study/trials/99", 404, "not_found", "no trial 99"),
        ("GET", f"{BASE}/study/best", 404, "not_found", "no complete trial yet"),
        ("GET", f"{BASE}/study/trials/x", 422, "invalid", "number"),
        ("GET", f"{BASE}?limit=0", 422, "invalid", "limit"),
        ("GET", f"{BASE}?cursor=x", 422, "invalid", "cursor"),
        ("GET", f"{BASE}/study/trials?state=DONE", 422, "invalid", "state"),
        ("GET", "/api/v1/blobs/xyz", 422, "invalid", "sha256"),
        ("GET", f"/api/v1/blobs/{'0' * 64}", 404, "not_found", "no checkpoint of hash 000"),
        ("GET", f"/api/v1/data/{'0' * 64}", 404, "not_found", "no data of hash 000"),
        ("PATCH", BASE, 405, "method_not_allowed", "Method Not Allowed"),
        ("POST", f"{BASE}/study/explode", 422, "invalid", "action"),
        ("POST", f"{BASE}/study/resume", 409, "conflict", "only a PAUSED study"),
        ("POST", f"{BASE}/study/archive", 409, "conflict", "stop it before"),
        ("POST", f"{BASE}/study/trials/0/cancel", 404, "not_found", "no trial 0"),
        ("POST", "/api/v1/trials/1/attempts/1/heartbeat", 422, "invalid", "Lmtune-Lease"),
    ],
)
def test_what_went_wrong_is_said(live: Live, method, path, status, code, says) -> None:
    said = problem(live.api.request(method, path))
    assert (said.status, said.code) == (status, code)
    assert says.lower() in f"{said.detail} {said.errors}".lower()


def test_every_error_of_the_tree_has_a_status() -> None:
    statuses = {code: status_of(error("x")) for code, error in errors.BY_CODE.items() if error}
    inner = {"internal", "startup", "trial", "diverged", "oom", "unreachable", "failed"}
    assert {code for code, status in statuses.items() if status == 500} == inner
    assert statuses["superseded"] == statuses["duplicate_name"] == 409


NOT_JSON = [b"", b"{", b"nope", b"[" * 100_000, b"\xff\xfe", b'"\\ud800"', b"{}{}"]
STRANGE = [
    [],
    "x",
    None,
    7,
    {},
    {"name": None},
    {"name": ["study"], "seq": HUGE},
    {"seq": HUGE, "lease_token": "0" * 32, "protocol": HUGE, "code_hash": "a"},
    {"items": [{"step": HUGE, "metrics": {"validation_loss": "NaN"}}]},
    {"step": HUGE, "environment": {"\x00": "\x00"}},
    {"outcome": "ok", "final_step": HUGE},
    {"step": HUGE, "sha256": "0" * 64, "bytes": HUGE, "code_hash": "", "last_report_step": HUGE},
    {"params": {"learning_rate": HUGE}},
    {"params": {"learning_rate": {"$gt": 0}}},
    {"params": {"\x00": 1}},
    {"name": "a\x00b", "host": "\x00", "pid": HUGE, "device": "", "protocol": 1, "code_hash": ""},
]


def writing_routes(live: Live) -> list[str]:
    paths = {path for method, path in all_routes(live.app) if method in ("POST", "PUT")}
    values = {"name": "study", "sha256": "0" * 64, "action": "resume"}
    return sorted(re.sub(r"\{(\w+)\}", lambda m: values.get(m[1], "1"), p) for p in paths)


@pytest.mark.parametrize("content", [*NOT_JSON, *[json.dumps(s).encode() for s in STRANGE]])
def test_no_body_is_a_defect(live: Live, content: bytes) -> None:
    for path in writing_routes(live):
        method = "PUT" if path.endswith("0" * 64) else "POST"
        headers = {"content-type": "application/json", "Lmtune-Lease": "0" * 32}
        if path in ("/login", "/logout", "/api/v1/login-links"):
            continue
        answer = live.api.request(method, path, content=content, headers=headers)
        assert answer.status_code < 500, (path, answer.text)
        if answer.is_error:
            problem(answer)


@pytest.mark.parametrize("value", ["-1", str(HUGE), "1e3", "0x1", "%00", "..%2f..%2ftoken", "é"])
def test_no_path_is_a_defect(live: Live, value: str) -> None:
    for method, path in all_routes(live.app):
        if "{" in path and not path.endswith("/events"):
            filled = re.sub(r"\{(\w+)\}", value, path)
            answer = live.api.request(method, filled, headers={"Lmtune-Lease": "0" * 32})
            assert answer.status_code < 500, (method, filled, answer.text)


def test_a_body_that_is_no_json_says_where(live: Live) -> None:
    answer = live.api.post(BASE, content=b'{"a": 1,}', headers={"content-type": "application/json"})
    (field,) = problem(answer).errors
    assert field.field == "body"
    assert re.match("is not JSON: .* at character 8", field.message)


def test_a_field_that_is_not_asked_for_is_refused(live: Live) -> None:
    """Nobody sets states, owners or leases by naming them."""
    body = spec("other").document()
    for name, value in {"state": "ENDED", "owner": "me", "revision": 9, "archived": True}.items():
        assert problem(live.api.post(BASE, json={**body, name: value})).errors[0].field == name
    answer = live.api.post(f"{BASE}/study/trials", json={"params": {}, "state": "COMPLETE"})
    assert problem(answer).errors[0].field == "state"
    assert live.api.get(f"{BASE}/other").status_code == 404


def test_a_defect_tells_its_number_only(live: Live, monkeypatch, caplog) -> None:
    def broken(*_: object) -> None:
        raise ValueError("secret /etc/passwd")

    monkeypatch.setattr(type(live.parts.reading), "studies", broken)
    answer = live.api.get(BASE)
    said = problem(answer)
    number = re.fullmatch("internal error ([0-9a-f]{8}); the server's log has more", said.detail)
    assert (said.status, said.code) == (500, "internal")
    assert "secret" not in answer.text
    record = next(r for r in caplog.records if number[1] in r.getMessage())
    assert "secret" in str(record.exc_info[1])


def test_a_database_that_is_gone_says_when_to_ask_again(live: Live, monkeypatch) -> None:
    def gone(*_: object) -> None:
        raise errors.Unavailable("the database does not answer; try again")

    monkeypatch.setattr(type(live.parts.ctx.database), "read", gone)
    monkeypatch.setattr(live.parts.reading, "_read", gone)
    for path in (BASE, "/readyz"):
        answer = live.api.get(path)
        assert problem(answer).code == "unavailable"
        assert answer.headers["retry-after"] == "1"
    assert live.http.get("/healthz").json() == {"status": "ok"}


def test_a_server_with_another_blob_folder_is_not_ready(live: Live) -> None:
    content = b"some text"
    digest = hashlib.sha256(content).hexdigest()
    assert live.http.get("/readyz").status_code == 200
    assert live.api.put(f"/api/v1/data/{digest}", content=content).is_success
    assert live.http.get("/readyz").status_code == 200
    live.parts.blobs.path(digest).rename(live.parts.blobs.folder / "elsewhere")
    answer = live.http.get("/readyz")
    assert problem(answer).code == "unavailable"
    assert "LMTUNE_BLOBS" in problem(answer).detail
    (live.parts.blobs.folder / "elsewhere").rename(live.parts.blobs.path(digest))
    assert live.http.get("/readyz").status_code == 200


def test_an_upload_over_the_cap_is_too_large(sqlite_url, tmp_path) -> None:
    content = b"x" * 1_001
    digest = hashlib.sha256(content).hexdigest()
    with Live(sqlite_url, tmp_path / "home", max_blob_bytes=1_000) as live:
        for kind in ("data", "blobs"):
            answer = live.api.put(f"/api/v1/{kind}/{digest}", content=content)
            assert problem(answer).code == "too_large"
            assert live.api.get(f"/api/v1/{kind}/{digest}").status_code == 404
        assert list(live.parts.blobs.folder.rglob("*")) == [live.parts.blobs.folder / "incoming"]
