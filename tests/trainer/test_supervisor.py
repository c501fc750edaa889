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
        end = time.monotonic() + 60
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
    server.retry_after = 2
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
        timeout=120,
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


def test_help_teaches():
    done = command("--help")
    assert done.returncode == 0
    for word in ("--server", "--recipe", "LMTUNE_TOKEN", "SIGTERM"):
        assert word in done.stdout


def test_what_is_wrong_is_one_line(recipe_file, tmp_path):
    missing = command("--recipe", tmp_path / "none.yaml")
    folder = command("--recipe", recipe_file, "--out", tmp_path / "none" / "final")
    token = command("--server", "http://127.0.0.1:1", LMTUNE_HOME=str(tmp_path))
    for done, word in ((missing, "No such file"), (folder, "no folder"), (token, "no token")):
        assert done.returncode == 1
        assert done.stderr.startswith("lmtune-worker: ")
        assert word in done.stderr
        assert done.stderr.count("\n") == 1
