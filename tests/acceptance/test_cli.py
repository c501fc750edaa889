"""`lmtune` as a person runs it: real processes, a real server, a worker that really trains."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from studies.cores import thread_limit
from tests.harness.lmtune import Server
from tests.harness.process import PATIENCE, ROOT, Process, free_port, wait_for

TEXT = "".join(f"{n} bottles of beer on the wall, {n} bottles of beer.\n" for n in range(200))
STUDY = {
    "name": "bottles",
    "data": {"path": "bottles.txt", "tokenizer": "characters"},
    "model": {"kind": "lstm", "embedding_dim": 8, "hidden_dim": 32},
    "train": {"steps": 60, "batch_size": 8, "sequence_length": 32, "evaluate_every": 20},
    "search": {"learning_rate": {"log": [5.0e-3, 5.0e-2]}},
    "budget": {"trials": 3, "wall_time": "5m"},
}
Lmtune = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    """A tiny study beside its text."""
    (tmp_path / "bottles.txt").write_text(TEXT)
    path = tmp_path / "bottles.yaml"
    path.write_text(yaml.safe_dump(STUDY))
    return path


@pytest.fixture
def lmtune(home: Path) -> Lmtune:
    """Runs `lmtune` on the test's home; its output is captured, so it is no terminal."""

    def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "studies.cli", *arguments],
            env={**os.environ, "LMTUNE_HOME": str(home), **env},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=180 * PATIENCE,
        )

    return run


@pytest.fixture
def up(tmp_path: Path, home: Path) -> Iterator[Callable[..., Process]]:
    """Starts `lmtune up ...` and leaves it running; it ends with the test."""
    started: list[Process] = []

    def start(*arguments: str) -> Process:
        log = tmp_path / f"up-{len(started)}.log"
        env = {"LMTUNE_HOME": str(home)}
        process = Process("studies.cli", ["up", "--port", "0", *arguments], env, log)
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        process.stop()


def losses(output: str) -> list[float]:
    return [float(loss) for loss in re.findall(r"validation_loss (\d+\.\d+)", output)]


def test_up_once_trains_prints_the_best_and_the_baseline_and_ends(
    lmtune: Lmtune, home: Path, study_file: Path
) -> None:
    ran = lmtune("up", "--once", "--port", "0", "--study", str(study_file))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert len(re.findall(r"^trial \d: COMPLETE", ran.stdout, flags=re.M)) == 3
    baseline = re.search(r"^unigram baseline: (\d+\.\d+) nats per token$", ran.stdout, flags=re.M)
    assert baseline is not None
    assert min(losses(ran.stdout)) < float(baseline[1])
    assert "\x1b" not in ran.stdout + ran.stderr
    assert re.search(r"^dashboard: http://127\.0\.0\.1:\d+/login\?", ran.stdout, flags=re.M)
    assert f"database: sqlite:///{home / 'lmtune.db'}" in ran.stdout
    assert (home / "lmtune.db").exists()
    assert not ran.stderr


def test_a_serving_up_answers_every_command_until_it_is_told_to_end(
    lmtune: Lmtune, up: Callable[..., Process], study_file: Path, tmp_path: Path
) -> None:
    process = up("--study", str(study_file))
    wait_for(lambda: "serving until" in process.output, 120, "end of the study")
    best = json.loads(lmtune("best", "bottles", "--json").stdout)
    assert best["value"] == pytest.approx(min(losses(process.output)), abs=1e-4)
    assert best["unigram_loss"] > best["value"]
    assert "learning_rate" in best["params"]
    assert "bottles" in lmtune("list").stdout
    assert lmtune("watch", "bottles").returncode == 0
    assert json.loads(lmtune("workers", "--json").stdout)[0]["state"] == "idle"
    refused = lmtune("up", "--port", "0")
    assert refused.returncode == 1
    assert "a server already runs on" in refused.stderr

    recipe = tmp_path / "best.yaml"
    text = str(tmp_path / "bottles.txt")
    lmtune("export", "bottles", "--format", "recipe", "--data", text, "-o", str(recipe))
    # Its sums are those of the worker that `up` has started if its threads are as many.
    alone = Process("trainer", ["--recipe", str(recipe)], thread_limit(1), tmp_path / "alone.log")
    alone.start()
    assert alone.wait(60) == 0, alone.output
    assert f"{best['value']:.4f}" in alone.output

    process.signal(signal.SIGTERM)
    assert process.wait(60) == 0, process.output
    assert lmtune("list").returncode == 4


@pytest.mark.slow
def test_an_interrupted_up_loses_nothing(
    lmtune: Lmtune, up: Callable[..., Process], study_file: Path, home: Path
) -> None:
    longer = {**STUDY, "budget": {"trials": 3}}
    longer["train"] = {**STUDY["train"], "steps": 400, "evaluate_every": 100}  # type: ignore[dict-item]
    study_file.write_text(yaml.safe_dump(longer))
    process = up("--once", "--study", str(study_file))
    log = home / "logs" / "worker-cpu0.log"
    wait_for(lambda: log.exists() and "trial 1 of" in log.read_text(), 120, "second trial")
    process.signal(signal.SIGINT)
    assert process.wait(60) == 130, process.output
    assert "workers checkpoint" in process.output
    ran = lmtune("up", "--once", "--port", "0", "--study", str(study_file))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.search(r"going on with study bottles: \d+/3 trials", ran.stdout)
    assert len(re.findall(r"^trial \d+: COMPLETE", ran.stdout, flags=re.M)) == 3
    study_file.write_text(yaml.safe_dump({**longer, "budget": {"trials": 1}}))
    again = lmtune("up", "--once", "--port", "0", "--study", str(study_file))
    assert "study bottles-2: 1 trial" in again.stdout


def test_steering_a_study_that_no_worker_trains(
    lmtune: Lmtune, server: Server, study_file: Path
) -> None:
    env = {"LMTUNE_HOME": str(server.home)}

    def said(*arguments: str) -> str:
        ran = lmtune(*arguments, **env)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    assert said("create", str(study_file)) == "created study bottles: 3 trials\n"
    assert "bottles.txt" in said("data", "list")
    assert "WAITING" in said("enqueue", "bottles", "learning_rate=1e-2")
    assert said("budget", "bottles", "--trials", "9") == "bottles: 9 trials\n"
    assert said("budget", "bottles", "--workers", "2") == "bottles: 9 trials\n"
    assert json.loads(said("show", "bottles", "--json"))["spec"]["resources"] == {"workers": 2}
    assert said("budget", "bottles", "--workers", "none") == "bottles: 9 trials\n"
    assert said("narrow", "bottles", "learning_rate=1e-2..2e-2").startswith("bottles: learning")
    assert said("pause", "bottles").startswith("bottles: PAUSED")
    assert said("resume", "bottles").startswith("bottles: RUNNING")
    assert said("cancel", "bottles", "0") == "trial 0: CANCELLED\n"
    assert json.loads(said("show", "bottles", "--json"))["counts"] == {"CANCELLED": 1}
    assert said("export", "bottles", "--format", "csv").splitlines()[1].startswith("0,CANCELLED,")
    assert said("login").startswith(f"{server.url}/login?")
    for command, code in [
        (["create", str(study_file)], 1),  # a duplicate name
        (["best", "bottles"], 3),  # no complete trial
        (["cancel", "bottles", "0"], 1),  # it is terminal
        (["enqueue", "bottles", "learning_rate=-1"], 2),
        (["enqueue", "bottles", "dropout=0.1"], 2),  # not searched here
        (["narrow", "bottles", "learning_rate=1e-9..1e-2"], 2),  # wider
        (["budget", "bottles", "--wall-time", "soon"], 2),
        (["show", "nobody"], 3),
    ]:
        ran = lmtune(*command, **env)
        assert (ran.returncode, ran.stdout) == (code, ""), command
        assert ran.stderr.startswith("error: ")
        assert ran.stderr.count("\n") == 1
    assert said("stop", "bottles").startswith("bottles: END")
    assert said("archive", "bottles").strip().endswith("archived")
    assert lmtune("watch", "bottles", **env).returncode == 1


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody else listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def one_line(ran: subprocess.CompletedProcess[str], code: int, words: str) -> None:
    """Asserts that the command failed with this code and a single clear line."""
    assert ran.returncode == code, ran
    assert ran.stderr.startswith("error: "), ran
    assert ran.stderr.count("\n") == 1, ran
    assert words in ran.stderr, ran
    assert ran.stdout == ""


def test_a_taken_port_is_said(lmtune: Lmtune, taken: int) -> None:
    one_line(
        lmtune("up", "--port", str(taken)),
        1,
        f"cannot listen on 127.0.0.1:{taken}: Address already in use",
    )


def test_a_home_that_cannot_be_written_is_said(lmtune: Lmtune, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    ran = lmtune("up", "--port", "0", LMTUNE_HOME=str(file))
    one_line(ran, 1, str(file))
    assert file.read_text() == ""


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", "not a database URL"),
        ("mysql://u:secret@h/d", "names mysql; use sqlite:///FILE or postgresql+psycopg://"),
        ("sqlite:////nowhere/x.db", "cannot open the database"),
        ("postgresql+psycopg://u:secret@127.0.0.1:9/d", "Connection refused"),
    ],
)
def test_a_broken_database_url_is_said(lmtune: Lmtune, url: str, words: str) -> None:
    ran = lmtune("up", "--port", str(free_port()), LMTUNE_DATABASE_URL=url)
    one_line(ran, 1, words)
    assert "secret" not in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_bad_study_stops_before_anything_is_made(
    lmtune: Lmtune, home: Path, study_file: Path
) -> None:
    study_file.with_name("bottles.txt").unlink()
    one_line(lmtune("up", "--study", str(study_file)), 2, "bottles.txt: no such file")
    one_line(lmtune("up", "--study", "nowhere.yaml"), 2, "nowhere.yaml: No such file")
    assert list(home.iterdir()) == []
