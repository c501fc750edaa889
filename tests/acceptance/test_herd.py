"""A thundering herd: a thousand workers start within a second, and again after a crash.

Every worker gets its trial, and no answer is worse than "ask again". How long that takes is what
`make bench-service` measures; a test does not gate on a machine's speed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.harness.lmtune import Server
from tests.harness.process import ROOT
from tests.service.world import spec

pytestmark = [pytest.mark.slow, pytest.mark.nightly]
COUNT = 1_000
ON_POSTGRES = 200  # `make bench-service ARGS="--only herd"` sends all of them
LEASE = "3600"  # [s] nobody trains here, and nothing is to be stolen from the first herd


def herd(server: Server, name: str, count: int) -> dict[str, Any]:
    """What a herd of workers saw that met the server in a process of their own."""
    command = [sys.executable, "-m", "tests.acceptance.herd", server.url, server.token, name]
    done = subprocess.run(
        [*command, str(count)], cwd=ROOT, check=True, capture_output=True, text=True, timeout=600
    )
    return json.loads(done.stdout)


def check(seen: dict[str, Any], count: int) -> None:
    assert seen["granted"] == count, seen
    assert set(seen["seen"]) <= {"200", "201", "204", "503"}, seen


def test_a_thousand_workers_at_once_and_again_after_a_crash(make_server, database_url) -> None:
    count = COUNT if database_url.startswith("sqlite") else ON_POSTGRES
    server = make_server(database_url, LMTUNE_LEASE_SECONDS=LEASE)
    server.client.studies.create(spec("study", budget={"trials": 2 * count}))
    check(herd(server, "first", count), count)
    server.kill()
    server.start()
    check(herd(server, "second", count), count)
    counts = server.client.studies.get("study").counts
    assert counts == {"RUNNING": 2 * count}
