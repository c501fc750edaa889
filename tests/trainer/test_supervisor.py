"""A worker's whole life, its parts, and its command line."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from studies.corpus import text_sha256
from studies.errors import LmtuneError, NotFound
from tests.harness.process import PATIENCE
from trainer import supervisor
from trainer.cache import TextCache
from trainer.patience import Patience
from trainer.supervisor import Supervisor

from .fake_server import FakeServer


@pytest.fixture
def server(monkeypatch, home, text):
    """A fake server that has the text; whoever asks the process to go is answered as before."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    server = FakeServer()
    server.texts[text_sha256(text)] = text.encode()
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    yield server
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def recipe(tiny, text):
    return lambda **knobs: tiny(builtin=None, sha256=text_sha256(text), **knobs)


def when(ready, number=signal.SIGTERM, after=0.0):
    """Sends this process a signal some time after `ready()` holds."""

    def watch():
        end = time.monotonic() + 60 * PATIENCE
        while not ready() and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(after)
        os.kill(os.getpid(), number)

    threading.Thread(target=watch, daemon=True).start()


def test_a_worker_waits_for_its_server_serves_with_one_child_and_goes_when_asked(
    server, recipe, home
):
    server.down = True
    threading.Timer(3.0, lambda: setattr(server, "down", False)).start()
    first, second = server.add(recipe()), server.add(recipe(seed=2))
    worker = Supervisor(server.client(), None)
    when(server.idle.is_set, signal.SIGINT)
    assert worker.serve() == 0
    assert [t.finishes[0].outcome for t in (first, second)] == ["ok", "ok"]
    assert first.environment["pid"] == second.environment["pid"] != os.getpid()
    assert server.registered[0].device == "cpu"
    assert server.gone
    assert len(list((home / "cache" / "data").iterdir())) == 1


def test_sigterm_checkpoints_and_releases_the_trial(server, recipe):
    trial = server.add(recipe(steps=1_000_000, evaluate_every=1_000_000))
    when(lambda: any(trial.steps))
    assert Supervisor(server.client(), "w").serve() == 0
    (end,) = trial.finishes
    assert end.outcome == "preempted"
    assert trial.checkpoints[-1].step == end.final_step > 0
    assert server.gone


def test_a_second_life_of_a_name_is_another_worker(server, recipe, caplog):
    for life in ("first", "second"):
        trial = server.add(recipe())
        server.idle.clear()
        when(server.idle.is_set)
        assert Supervisor(server.client(), "w").serve() == 0
        assert trial.finishes[0].outcome == "ok", life
    names = [body.name for body in server.registered]
    assert names[:2] == ["w", "w"]
    assert re.fullmatch("w-[0-9a-f]{8}", names[2])
    assert f"registering anew as {names[2]}" in caplog.text


def test_a_launched_worker_that_was_replaced_does_not_go_on_as_another(server, caplog):
    server.refusals["claim"] = (409, "stale_claim")
    assert Supervisor(server.client(), "w", launched=True).serve() == 1
    assert [body.name for body in server.registered] == ["w"]
    assert "its launcher has replaced this worker" in caplog.text


def test_a_launched_worker_that_gets_nothing_for_long_goes(server, recipe, monkeypatch):
    """Nobody seems to look after it: its launcher would ask it to go."""
    monkeypatch.setattr(supervisor, "_IDLE_SECONDS", 0.5)
    trial = server.add(recipe())
    assert Supervisor(server.client(), "w", launched=True).serve() == 0
    assert trial.finishes[0].outcome == "ok"
    assert server.gone


def test_a_server_that_fails_at_first_or_forgets_ends_no_worker(server, recipe):
    trial = server.add(recipe())
    server.refusals |= {"register": (500, "internal"), "claim": (404, "")}
    server.forget = 1
    when(server.idle.is_set)
    assert Supervisor(server.client(), "w").serve() == 0
    assert trial.finishes[0].outcome == "ok"
    assert server.refusals == {}
    assert [body.name for body in server.registered] == ["w", "w"]


def test_nothing_to_do_is_not_asked_for_again_before_its_time(server):
    server.retry_after = 60
    when(server.idle.is_set, after=1.5)
    assert Supervisor(server.client(), "w").serve() == 0
    assert server.claims == 1


def test_what_a_killed_worker_has_left_is_removed(server, home):
    left = home / "work" / "123-dead"
    left.mkdir(parents=True)
    (left / "reports.jsonl").write_text("{}")
    when(server.idle.is_set)
    assert Supervisor(server.client(), "w").serve() == 0
    assert list((home / "work").iterdir()) == []


# ---------------------------------------------------------------- parts


def test_a_text_is_fetched_once_and_again_when_its_file_is_damaged(server, text, home):
    cache = TextCache(server.client(), Patience(1.0))
    path = cache.fetch(text_sha256(text))
    assert path.read_text() == text
    path.write_text("damaged")
    assert cache.fetch(text_sha256(text)).read_text() == text
    server.texts.clear()
    assert cache.fetch(text_sha256(text)) == path


def test_another_text_than_asked_for_is_not_kept(server, home):
    server.texts["0" * 64] = b"something else"
    cache = TextCache(server.client(), Patience(1.0))
    with pytest.raises(LmtuneError, match="another text"):
        cache.fetch("0" * 64)
    with pytest.raises(NotFound):
        cache.fetch("1" * 64)
    assert list((home / "cache" / "data").glob("0*")) == []


# ---------------------------------------------------------------- the command


def command(*arguments, **env):
    return subprocess.run(
        [sys.executable, "-m", "trainer", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100", **env},
        timeout=120 * PATIENCE,
    )


@pytest.fixture
def recipe_file(tiny, text, tmp_path):
    (tmp_path / "corpus.txt").write_text(text)
    recipe = tiny(builtin=None, path=str(tmp_path / "corpus.txt"))
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(recipe.model_dump(mode="json", by_alias=True, exclude_none=True)))
    return path


def test_a_recipe_is_trained_alone(recipe_file, tmp_path):
    done = command("--recipe", recipe_file, "--out", tmp_path / "final.safetensors")
    assert done.returncode == 0, done.stderr
    assert "unigram model" in done.stdout
    assert "step 12 counts: validation loss" in done.stdout
    assert (tmp_path / "final.safetensors").stat().st_size > 1_000
    again = command("--recipe", recipe_file, "--from", tmp_path / "final.safetensors")
    assert again.returncode == 0, again.stderr
    assert "ended at step 12" in again.stdout
    other = json.loads(recipe_file.read_text())
    other["train"]["learning_rate"] = 0.5
    recipe_file.write_text(json.dumps(other))
    refused = command("--recipe", recipe_file, "--from", tmp_path / "final.safetensors")
    assert refused.returncode == 1
    assert refused.stderr == "lmtune-worker: final.safetensors belongs to another recipe\n"


def test_a_run_alone_ends_where_it_is_told_and_writes_its_reports(recipe_file, tmp_path):
    reports, out = tmp_path / "reports.jsonl", tmp_path / "at-8.safetensors"
    done = command("--recipe", recipe_file, "--until", 8, "--reports", reports, "--out", out)
    assert done.returncode == 0, done.stderr
    environment, *rows = map(json.loads, reports.read_text().splitlines())
    assert [row["step"] for row in rows] == [6]
    assert environment["recipe"]["train"]["steps"] == 12
    assert len(environment["git_commit"] or 40 * "0") >= 40
    again = command("--recipe", recipe_file, "--from", out)
    assert "step 12 counts" in again.stdout
    assert "step       6 " not in again.stdout


def test_help_teaches():
    done = command("--help")
    assert done.returncode == 0
    for word in ("--server", "--recipe", "LMTUNE_TOKEN", "SIGTERM"):
        assert word in done.stdout


def test_what_is_wrong_is_one_line(recipe_file, tmp_path):
    missing = command("--recipe", tmp_path / "none.yaml")
    folder = command("--recipe", recipe_file, "--out", tmp_path / "none" / "final")
    start = command("--recipe", recipe_file, "--from", tmp_path / "none")
    token = command("--server", "http://127.0.0.1:1", LMTUNE_HOME=str(tmp_path))
    said = ("No such file", "no folder", "there is no file", "no token")
    for done, word in zip((missing, folder, start, token), said, strict=True):
        assert done.returncode == 1
        assert done.stderr.startswith("lmtune-worker: ")
        assert word in done.stderr
        assert done.stderr.count("\n") == 1
