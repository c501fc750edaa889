"""A disk that fails under a real server: it ends rather than go on, and loses nothing it said."""

from __future__ import annotations

import resource
import sqlite3

import pytest

from studies import wire
from studies.client import WorkerClient
from tests.harness.lmtune import Server
from tests.harness.process import wait_for
from tests.service.world import items, spec

BROKEN = 74  # EX_IOERR


@pytest.fixture
def reported(server: Server) -> Server:
    """A server that has acknowledged a report at step 10."""
    server.client.studies.create(spec("study"))
    workers = WorkerClient(server.url, server.token)
    known = workers.register(
        wire.RegisterBody(name="w", host="b", pid=1, device="cpu", protocol=1, code_hash="c")
    )
    body = wire.ClaimBody(seq=1, lease_token="0" * 32, protocol=1, code_hash="c")
    grant = workers.claim(known.worker_id, body).grant
    assert grant is not None
    workers.attempt(grant, "0" * 32).report(items((10, 1.0)))
    workers.http.close()
    return server


def ended(server: Server) -> int | None:
    """Its exit code; the lease clock writes every second, so a broken disk is soon found."""
    wait_for(lambda: not server.running, 30, "end of the server")
    return server.wait()


def test_a_write_that_fails_in_a_commit_ends_the_server(reported: Server) -> None:
    """Writes beyond a limit fail as those to a broken disk do: SQLite says disk I/O error."""
    resource.prlimit(reported.pid, resource.RLIMIT_FSIZE, (65_536, 65_536))
    assert ended(reported) == BROKEN
    assert "disk I/O error" in reported.output
    reported.start()
    assert reported.client.studies.trial("study", 0).step == 10
    with sqlite3.connect(reported.home / "lmtune.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    database.close()


def test_a_server_does_not_start_on_a_damaged_file(reported: Server) -> None:
    """In WAL nothing reads the file while its pages are in memory: the next server finds it."""
    reported.kill()
    for path in reported.home.glob("lmtune.db*"):
        with path.open("r+b") as file:
            file.write(b"\x5a" * path.stat().st_size)
    with pytest.raises(RuntimeError, match=r"cannot open the database .* is not a database"):
        reported.start()
