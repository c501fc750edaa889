"""Who may call: nobody without a token, but for a short written list."""

from __future__ import annotations

import logging
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from service import auth
from studies.errors import StartupError
from tests.harness.routes import all_routes
from tests.service.live import Live
from tests.service.world import spec

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
# What anybody may call. A new line here is a decision about security.
OPEN = {
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/login"),
    ("POST", "/login"),
    ("GET", "/static/{version}/{name}"),
}
HTML = {"accept": "text/html,application/xhtml+xml"}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    home = tmp_path_factory.mktemp("auth")
    with Live("", home) as live:
        live.client.studies.create(spec("study", budget={"trials": 1}))
        yield live


def filled(path: str) -> str:
    return re.sub(
        r"\{(\w+)\}", lambda m: {"name": "study", "sha256": "0" * 64}.get(m[1], "1"), path
    )


def test_every_route_denies_every_method_without_a_token(live: Live) -> None:
    routes = all_routes(live.app)
    assert len(routes) > 30
    passed = set()
    for path in {path for _, path in routes}:
        for method in METHODS:
            answer = live.http.request(method, filled(path))
            if "www-authenticate" not in answer.headers:
                passed.add((method, path, answer.status_code))
            else:
                assert answer.status_code == 401
    assert {(method, path) for method, path, status in passed if status != 405} == OPEN
    assert {path for _, path, _ in passed} == {path for _, path in OPEN}


def test_a_path_that_is_no_route_denies_too(live: Live) -> None:
    for path in ("/nope", "/docs", "/redoc", "/api/v2/studies", "/api/v1/", "/static/../token"):
        assert live.http.get(path).status_code in (401, 404)
        assert live.http.get(path, headers=HTML, follow_redirects=False).status_code in (303, 404)
    assert live.api.get("/docs").status_code == 404


def test_nothing_is_read_of_a_stranger(live: Live) -> None:
    """Neither a body that is no JSON nor a name that is no study tells a stranger anything."""
    broken = {"content": b"{", "headers": {"content-type": "application/json"}}
    assert live.http.post("/api/v1/studies", **broken).status_code == 401
    for name in ("study", "nowhere"):
        assert live.http.get(f"/api/v1/studies/{name}").status_code == 401


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer wrong", "Basic dTpw", "Token {token}", "Bearer {token}x"],
)
def test_only_the_token_lets_in(live: Live, header) -> None:
    said = {"Authorization": header.format(token=live.token)}
    assert live.http.get("/api/v1/studies", headers=said).status_code == 401


def test_a_token_in_the_address_lets_nobody_in(live: Live) -> None:
    for name in ("token", "access_token", "code"):
        answer = live.http.get("/api/v1/studies", params={name: live.token})
        assert answer.status_code == 401


def test_the_token_lets_in(live: Live) -> None:
    assert live.api.get("/api/v1/studies").status_code == 200
    assert live.api.get("/openapi.json").status_code == 200
    lower = {"Authorization": f"bearer {live.token}"}
    assert live.http.get("/metrics", headers=lower).status_code == 200


# ------------------------------------------------------------------ browsers


@contextmanager
def browser(live: Live) -> Iterator[httpx.Client]:
    """A browser that is signed in."""
    with httpx.Client(base_url=live.url, headers=HTML, timeout=30) as client:
        answer = client.get(live.client.login_link().url)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        yield client


def test_a_browser_without_a_session_is_sent_to_sign_in(live: Live) -> None:
    answer = live.http.get("/studies/study", headers=HTML)
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")


def test_a_login_link_works_once(live: Live) -> None:
    link = live.client.login_link().url
    with httpx.Client(timeout=30) as first, httpx.Client(timeout=30) as second:
        assert first.get(link).status_code == 303
        again = second.get(link)
        assert (again.status_code, "set-cookie" in again.headers) == (401, False)
        assert "was used or is too old" in again.text
        assert first.get(live.url + "/").status_code == 200


def test_a_login_link_leads_to_a_page_of_ours_and_nowhere_else(live: Live) -> None:
    pages = {
        "/studies/a.b-1": "/studies/a.b-1",
        "/studies/a/trials/12": "/studies/a/trials/12",
        "//evil.example": "/",
        "https://evil.example/studies/a": "/",
        "/studies/a/../../login": "/",
        "/studies/a\n": "/",
    }
    for page, place in pages.items():
        answer = live.http.get(live.client.login_link(page).url)
        assert (answer.status_code, answer.headers["location"]) == (303, place), page
    live.http.cookies.clear()


def test_a_login_link_grows_old(live: Live) -> None:
    link = live.client.login_link().url
    code = link.partition("code=")[2]
    tokens = live.parts.ctx.database

    def age(tx):
        from service.store.tables import tokens as rows

        same = rows.c.hash == auth.hashed(code)
        tx.conn.execute(rows.update().where(same).values(expires_at=tx.now - 1))

    tokens.write(age)
    assert live.http.get(link).status_code == 401


def test_the_session_cookie_is_kept_from_scripts_and_other_sites(live: Live) -> None:
    cookie = live.http.get(live.client.login_link().url).headers["set-cookie"]
    live.http.cookies.clear()
    assert "HttpOnly" in cookie
    assert re.search(r"SameSite=(lax|strict)", cookie, re.I)
    assert "Path=/" in cookie
    assert live.token not in cookie


def test_the_pasted_token_signs_in_and_a_wrong_one_does_not(live: Live) -> None:
    with httpx.Client(base_url=live.url, timeout=30) as client:
        wrong = client.post("/login", data={"token": "lmt_wrong"})
        assert (wrong.status_code, "set-cookie" in wrong.headers) == (401, False)
        right = client.post("/login", data={"token": f" {live.token}\n"})
        assert (right.status_code, right.headers["location"]) == (303, "/")
        assert client.get("/").status_code == 200


def test_a_login_code_or_a_session_is_no_token(live: Live) -> None:
    code = live.client.login_link().url.partition("code=")[2]
    with browser(live) as client:
        session = client.cookies[auth.COOKIE]
        assert client.get("/").status_code == 200
    for secret in (code, session):
        said = {"Authorization": f"Bearer {secret}"}
        assert live.http.get("/api/v1/studies", headers=said).status_code == 401
        assert live.http.post("/login", data={"token": secret}).status_code == 401
    as_cookie = {"Cookie": f"{auth.COOKIE}={live.token}"}
    assert live.http.get("/api/v1/studies", headers=as_cookie).status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, 409),
        ({"Origin": "{url}"}, 409),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "none"}, 403),
        ({"Origin": "http://evil.test"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "{url}", "Sec-Fetch-Site": "cross-site"}, 403),
        ({}, 403),
    ],
)
def test_only_our_own_pages_change_things_with_a_cookie(live: Live, headers, status) -> None:
    """409: it passed the gate, and a running study cannot be resumed."""
    said = {name: value.format(url=live.url) for name, value in headers.items()}
    with browser(live) as client:
        assert client.post("/api/v1/studies/study/resume", headers=said).status_code == status
        assert client.get("/api/v1/studies/study", headers=said).status_code == 200


def test_a_sign_out_ends_the_session_at_once(live: Live) -> None:
    ours = {"Sec-Fetch-Site": "same-origin"}
    with browser(live) as client:
        session = client.cookies[auth.COOKIE]
        assert client.get("/").status_code == 200
        assert client.post("/logout", headers=ours).status_code == 303
        old = {"Cookie": f"{auth.COOKIE}={session}"}
        assert live.http.get("/api/v1/studies", headers=old).status_code == 401


# ------------------------------------------------------------------ proxies


@pytest.mark.parametrize(
    ("settings", "scheme"),
    [
        ({}, "http"),
        ({"allow_http": True}, "http"),  # a proxy on this machine is believed, this caller is not
        ({"trusted_proxies": ["127.0.0.2"]}, "https"),
        ({"trusted_proxies": ["10.0.0.10", "127.0.0.0/24"]}, "https"),
    ],
)
def test_only_named_proxies_are_believed_that_a_call_came_by_tls(
    tmp_path: Path, settings, scheme
) -> None:
    said = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7"}
    elsewhere = httpx.HTTPTransport(local_address="127.0.0.2")
    with (
        Live("", tmp_path, **settings) as live,
        httpx.Client(base_url=live.url, headers=said, transport=elsewhere) as proxy,
    ):
        bearer = {"Authorization": f"Bearer {live.token}"}
        link = proxy.post("/api/v1/login-links", headers=bearer).json()["url"]
        assert link.startswith(f"{scheme}://")
        cookie = proxy.get(link.replace("https://", "http://")).headers["set-cookie"]
        assert ("secure" in cookie.lower()) == (scheme == "https")


# ------------------------------------------------------------------ host names


@pytest.mark.parametrize(
    "host", ["evil.test", "127.0.0.1.evil.test", "localhost.evil.test:80", "10.0.0.1", "[::2]"]
)
def test_a_foreign_host_name_is_refused(live: Live, host) -> None:
    for path in ("/api/v1/studies", "/login", "/nope"):
        answer = live.api.get(path, headers={"Host": host})
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def test_probes_are_answered_by_address(live: Live) -> None:
    """As Kubernetes and load balancers ask, which know no name of ours."""
    for path in auth.PROBES:
        answer = live.http.get(path, headers={"Host": "10.244.1.7:8080"})
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_what_is_no_host_name_at_all_is_no_defect(live: Live) -> None:
    for host in ("[::1", "", "a b", "%00", "localhost:port"):
        assert live.http.get("/login", headers={"Host": host}).status_code in (200, 400, 403)


@pytest.mark.parametrize("host", ["localhost", "localhost:9", "127.0.0.1:8080", "[::1]:8080"])
def test_the_loopbacks_names_are_ours(live: Live, host) -> None:
    assert live.api.get("/api/v1/studies", headers={"Host": host}).status_code == 200


def test_forwarded_names_change_nothing(live: Live) -> None:
    said = {"X-Forwarded-Host": "evil.test", "X-Forwarded-Proto": "https", "Forwarded": "host=e"}
    link = live.api.post("/api/v1/login-links", headers=said).json()["url"]
    assert link.startswith(live.url + "/login?code=")


def test_no_other_origin_may_read(live: Live) -> None:
    answer = live.api.get("/api/v1/studies", headers={"Origin": "http://evil.test"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


# ------------------------------------------------------------------ secrets


def test_no_secret_is_in_the_database_or_the_log(live: Live, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    link = live.client.login_link().url
    with browser(live) as client:
        secrets = [live.token, link.partition("code=")[2], client.cookies[auth.COOKIE]]
        live.http.get("/api/v1/studies", headers={"Authorization": f"Bearer {secrets[0]}x"})
    held = (live.settings.home / "lmtune.db").read_bytes()
    ours = [record for record in caplog.records if not record.name.startswith("http")]
    said = "\n".join(record.getMessage() for record in ours)
    for secret in secrets:
        assert len(secret) > 43  # 256 bits in base64, and a prefix
        assert secret.encode() not in held
        assert secret.partition("_")[2] not in said


def test_the_token_is_kept_and_for_its_owner_only(tmp_path) -> None:
    first = auth.home_token(tmp_path)
    assert auth.home_token(tmp_path) == first
    mode = subprocess.run(["stat", "-c", "%a", tmp_path / "token"], capture_output=True, text=True)
    assert mode.stdout.strip() == "600"
    assert auth.new_token() != auth.new_token()


def test_a_token_that_cannot_be_kept_is_one_clear_line(tmp_path) -> None:
    (tmp_path / "token").mkdir()
    with pytest.raises(StartupError, match="cannot keep the token in"):
        auth.home_token(tmp_path)


def test_an_empty_token_is_refused(tmp_path) -> None:
    """The machine may stop between the file and its content; nothing must let nobody in."""
    (tmp_path / "token").touch()
    with pytest.raises(StartupError, match="is empty"):
        auth.home_token(tmp_path)
