"""A worker on another machine, started by the lines that `lmtune worker-command` prints."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil

from service.launcher.by_hand import worker_command
from tests.conftest import MakeServer
from tests.harness.process import wait_for

# Stands for the other machine: what ssh is told runs in a home of its own.
SSH = 'ssh() { test "$1" = NODE && HOME=$ELSEWHERE sh -c "$2"; }; '


def test_the_printed_lines_start_a_worker_without_a_secret_in_its_arguments(
    make_server: MakeServer, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    server = make_server(home=tmp_path / ".lmtune")
    lines = server.client.worker_command()
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ELSEWHERE": str(elsewhere),
    }
    bash = ["bash", "-euc"]
    subprocess.run([*bash, SSH + lines.token], env=environment, cwd=tmp_path, check=True)
    copied = elsewhere / ".lmtune" / "token"
    assert (copied.read_text().strip(), copied.stat().st_mode & 0o777) == (server.token, 0o600)
    with psutil.Popen(
        [*bash, f"exec env {lines.command}"],
        env={**environment, "HOME": str(elsewhere)},
        cwd=elsewhere,
    ) as worker:
        wait_for(server.client.workers, 60, "worker that the server knows")
        for process in [worker, *worker.children(recursive=True)]:
            assert server.token not in " ".join(process.cmdline())
        worker.terminate()
        assert worker.wait(60) == 0


def test_an_address_of_this_machine_only_is_said() -> None:
    note = worker_command("http://127.0.0.1:8080").note
    assert note is not None
    assert "LMTUNE_PUBLIC_URL" in note
    assert worker_command("https://tune.example.org").note is None


def test_the_public_address_is_what_workers_are_told(make_server: MakeServer) -> None:
    server = make_server(LMTUNE_PUBLIC_URL="https://tune.example.org/lm/")
    assert "--server https://tune.example.org/lm" in server.client.worker_command().command


def test_an_address_cannot_end_the_command() -> None:
    assert "'http://a;reboot'" in worker_command("http://a;reboot").command
