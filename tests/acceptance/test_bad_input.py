"""Bad starts of real programs: one clear line on standard error, exit code 1, nothing half-made."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.harness.lmtune import Server
from tests.harness.process import PATIENCE, ROOT, free_port

Done = subprocess.CompletedProcess


def start(home: Path, *arguments: str, module: str = "service", **env: str) -> Done:
    """Starts a program that is expected to end by itself."""
    said = {"LMTUNE_HOME": str(home), "LMTUNE_WORKERS": "0", "LMTUNE_PORT": str(free_port())}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, **said, **env},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60 * PATIENCE,
        check=False,
    )


def assert_one_line(done: Done, *words: str, program: str = "lmtune-server") -> None:
    """The program ended with 1 and said why in one line, without a traceback or a secret."""
    lines = done.stderr.strip().splitlines()
    assert (done.returncode, done.stdout, len(lines)) == (1, "", 1), done.stderr
    assert lines[0].startswith(f"{program}: ")
    for word in words:
        assert word in lines[0]
    assert "secret" not in done.stderr


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@contextmanager
def taken_port() -> Iterator[int]:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield listener.getsockname()[1]


def test_a_home_that_cannot_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    home = tmp_path / "file"
    assert_one_line(start(home), f"cannot write the home folder {home}", "set LMTUNE_HOME")
    assert files(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


def test_blobs_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = start(tmp_path / "home", LMTUNE_BLOBS=str(tmp_path / "file"))
    assert_one_line(done, "cannot write the blobs in", "file")
    assert "lmtune.db" not in files(tmp_path / "home")


def test_a_port_in_use(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with taken_port() as port:
        done = start(home, "--port", str(port))
    assert_one_line(done, f"cannot listen on 127.0.0.1:{port}", "in use", "LMTUNE_PORT")
    assert {"lmtune.db", "token", "url"}.isdisjoint(files(home))


def test_an_address_that_is_not_ours(tmp_path: Path) -> None:
    done = start(tmp_path / "home", LMTUNE_HOST="192.0.2.1", LMTUNE_ALLOW_HTTP="1")
    assert_one_line(done, "cannot listen on 192.0.2.1")


def test_an_address_beyond_this_machine_without_tls(tmp_path: Path) -> None:
    host = "0.0.0.0"  # noqa: S104
    done = start(tmp_path / "home", "--host", host)
    assert_one_line(done, host, "plain HTTP", "TLS proxy", "LMTUNE_ALLOW_HTTP=1")
    assert files(tmp_path) == []


def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    url = "postgresql+psycopg://u:secret@127.0.0.1:1/n"
    shown = "cannot open the database postgresql+psycopg://u:***@127.0.0.1:1/n"
    for arguments in ((), ("reconcile",)):
        done = start(tmp_path / "home", *arguments, LMTUNE_DATABASE_URL=url)
        assert_one_line(done, shown, "refused")
    assert {"lmtune.db", "token", "url"}.isdisjoint(files(tmp_path / "home"))


def test_a_database_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "letter.db"
    path.write_text("Dear reader, " * 99)
    done = start(tmp_path / "home", LMTUNE_DATABASE_URL=f"sqlite:///{path}")
    assert_one_line(done, "file is not a database", str(path))
    assert path.read_text() == "Dear reader, " * 99


@pytest.mark.postgres
def test_a_database_that_does_not_exist(tmp_path: Path, postgres) -> None:
    url = postgres.database().rpartition("/")[0] + "/nowhere"
    done = start(tmp_path / "home", LMTUNE_DATABASE_URL=url)
    assert_one_line(done, "cannot open the database", '"nowhere" does not exist')


def test_a_second_server_on_one_home(server: Server) -> None:
    done = start(server.home)
    assert_one_line(done, f"another server (pid {server.pid})", str(server.home), "LMTUNE_HOME")
    assert server.client.http.ready
    assert (server.home / "url").read_text().strip() == server.url


def test_a_database_of_a_newer_lmtune(server: Server) -> None:
    server.stop()
    with closing(sqlite3.connect(server.home / "lmtune.db")) as database:
        database.execute("UPDATE lmtune_alembic_version SET version_num = '9999'")
        database.commit()
    assert_one_line(start(server.home), "the database is of a newer lmtune")


def test_a_setting_that_makes_no_sense(tmp_path: Path) -> None:
    done = start(tmp_path / "home", LMTUNE_WORKERS="many")
    assert_one_line(done, "LMTUNE_WORKERS", "many")
    assert files(tmp_path) == []


def test_a_list_that_is_no_json(tmp_path: Path) -> None:
    done = start(tmp_path / "home", LMTUNE_ALLOWED_HOSTS="tuner.example")
    assert_one_line(done, "allowed_hosts", "write it as JSON")


def test_a_bad_start_is_followed_by_a_good_one(tmp_path: Path, make_server) -> None:
    home = tmp_path / "home"
    with taken_port() as port:
        start(home, "--port", str(port))
    start(home, LMTUNE_DATABASE_URL="nonsense")
    server = make_server(home=home)
    assert list(server.client.studies.list()) == []


# ------------------------------------------------------------------ workers


def test_a_worker_without_a_token(tmp_path: Path) -> None:
    done = start(tmp_path, "--server", "http://127.0.0.1:1", module="trainer")
    assert_one_line(done, "no token", "LMTUNE_TOKEN", program="lmtune-worker")


def test_a_worker_with_a_wrong_token(server: Server, tmp_path: Path) -> None:
    env = {"LMTUNE_TOKEN": "lmt_wrong"}
    done = start(tmp_path, "--server", server.url, module="trainer", **env)
    assert done.returncode == 1
    assert "this token is not known here" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
