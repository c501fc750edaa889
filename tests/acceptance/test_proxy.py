"""Two servers of one PostgreSQL behind docker/nginx.conf, run by a real nginx without its TLS."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from studies.client import Client
from studies.errors import LmtuneError
from studies.spec import parse_spec
from tests.harness.lmtune import Server
from tests.harness.process import PATIENCE, ROOT, free_port, wait_for

if TYPE_CHECKING:
    from tests.harness.postgres import Postgres

pytestmark = [pytest.mark.slow, pytest.mark.postgres, pytest.mark.nginx]
CONFIG = ROOT / "docker" / "nginx.conf"
AROUND = """
pid {folder}/pid; error_log {folder}/error.log; daemon off; worker_processes 1;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    include {folder}/lmtune.conf;
}}
"""


@pytest.fixture
def servers(make_server: Callable[..., Server], postgres: Postgres, tmp_path: Path) -> list[Server]:
    url, blobs = postgres.database(), str(tmp_path / "blobs")
    names = {"LMTUNE_ALLOWED_HOSTS": '["tune.example.org"]'}
    return [make_server(url, LMTUNE_BLOBS=blobs, **names) for _ in range(2)]


@pytest.fixture
def proxy(servers: list[Server], nginx: Path, tmp_path: Path) -> Iterator[str]:
    """The address of an nginx before the servers."""
    port, ports, folder = free_port(), [server.port for server in servers], tmp_path / "nginx"
    folder.mkdir()

    def ours(found: re.Match[str]) -> str:
        return f"127.0.0.1:{ports[int(found[1]) - 1]}"

    text = re.sub(r"10\.0\.0\.1(\d):8080", ours, CONFIG.read_text())
    text = re.sub(r"ssl_certificate.*\n", "\n", text.replace("443 ssl", f"127.0.0.1:{port}"))
    (folder / "lmtune.conf").write_text(text)
    (folder / "nginx.conf").write_text(AROUND.format(folder=folder))
    process = subprocess.Popen([nginx, "-p", folder, "-c", folder / "nginx.conf"])
    try:
        wait_for(lambda: _ready(port, process, folder), 30, "answer through nginx")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _ready(port: int, process: subprocess.Popen[bytes], folder: Path) -> bool:
    assert process.poll() is None, (folder / "error.log").read_text()
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def document(name: str) -> dict:
    return {
        "name": name,
        "data": {"builtin": "stdlib"},
        "search": {"learning_rate": {"log": [1e-4, 1e-1]}},
        "budget": {"trials": 2},
    }


def test_events_pass_as_they_come_and_a_dead_server_is_passed_over(
    servers: list[Server], proxy: str
) -> None:
    token = servers[0].token
    client = Client(proxy, token)
    client.studies.create(parse_spec(document("one")))
    path, headers = f"{proxy}/api/v1/studies/one/events", {"Authorization": f"Bearer {token}"}
    with httpx.stream("GET", path, headers=headers, timeout=10 * PATIENCE) as stream:
        lines = stream.iter_lines()
        assert next(line for line in lines if line.startswith("event:"))
        servers[1].client.studies.act("one", "pause")
        # Buffered, it would come with the end of the stream: never.
        assert next(line for line in lines if line.startswith("data:") and "PAUSED" in line)

    servers[0].kill()
    wait_for(lambda: _resumed(client), 30, "an answer of the other server")
    for number in range(6):  # whichever server nginx would have chosen
        assert client.studies.get("one").state == "RUNNING", number
    client.studies.create(parse_spec(document("two")))
    assert servers[1].client.studies.get("two").slots == 0
    client.http.close()


def _resumed(client: Client) -> bool:
    try:
        return client.studies.act("one", "resume").state == "RUNNING"
    except LmtuneError:  # of a connection that was open to the dead one
        return False
