"""A study that really trains, small enough for two busy cores, and what it must leave behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage

from studies.spec import parse_spec
from studies.wire import TrialDetail
from tests.harness.lmtune import Server, Worker
from tests.harness.process import PATIENCE, ROOT, wait_for

TEXT = "".join(f"{n} bottles of beer on the wall, {n} bottles of beer.\n" for n in range(200))
EVERY, STEPS = 100, 1_200  # a trial of some seconds, reported and checkpointed 12 times


def create(server: Server, folder: Path, **parts: Any) -> str:
    """Creates the tiny study on the server; returns its name."""
    (folder / "bottles.txt").write_text(TEXT)
    document = {
        "name": "tiny",
        "data": {"path": "bottles.txt", "tokenizer": "characters"},
        "model": {"kind": "lstm", "embedding_dim": 8, "hidden_dim": 32},
        "train": {
            "steps": STEPS,
            "batch_size": 8,
            "sequence_length": 32,
            "evaluate_every": EVERY,
        },
        "search": {
            "learning_rate": {"log": [1.0e-3, 3.0e-2]},
            "dropout": {"uniform": [0.0, 0.3]},
        },
        "sampler": {"kind": "random", "seed": 3},
        "budget": {"trials": 2},
    }
    return server.client.studies.create(parse_spec(document | parts), base=folder).name


def wait_for_workers(server: Server, count: int) -> None:
    """Returns when so many workers are there and could train: what comes now, all may claim."""
    wait_for(lambda: len(server.client.workers()) == count, 60, f"{count} workers")


def undisturbed(folder: Path, seconds: float, workers: int = 1, **parts: Any) -> dict:
    """What the study comes to when nothing dies and nothing is cut."""
    server = Server(folder / "home", "", {})
    server.start()
    create(server, folder, **parts)
    started = [Worker(server, folder / f"worker-{number}", []) for number in range(workers)]
    for worker in started:
        worker.start()
    server.wait_for_end("tiny", seconds)
    found = outcome(server)
    assert [process.stop() for process in (*started, server)] == [0] * (workers + 1)
    return found


def lmtune(server: Server, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """The command of that name, on the server's machine."""
    return subprocess.run(
        [sys.executable, "-m", "studies.cli", *map(str, words)],
        env={**os.environ, **server.env}, cwd=ROOT, capture_output=True, text=True,
        timeout=120 * PATIENCE, check=False,
    )  # fmt: skip


def wait_for_step(server: Server, number: int, step: int, study: str = "tiny") -> TrialDetail:
    """Returns the trial once it has trained this far in its present attempt."""

    def there() -> bool:
        known = [view.number for view in server.client.studies.trials(study)]
        return number in known and server.client.studies.trial(study, number).step >= step

    wait_for(there, 120, f"step {step} of trial {number}; the server said {server.output[-2_000:]}")
    return server.client.studies.trial(study, number)


def outcome(server: Server, study: str = "tiny") -> dict[int, tuple[Any, ...]]:
    """What each trial came to, without anything that depends on time or on the worker."""
    found = {}
    for view in server.client.studies.trials(study):
        detail = server.client.studies.trial(study, view.number)
        losses = [(p.step, p.metrics["validation_loss"], p.tokens) for p in detail.curve]
        found[view.number] = (view.state, view.params, view.value, view.step, losses)
    return found


def attempts(server: Server, number: int, study: str = "tiny") -> list[str | None]:
    return [attempt.outcome for attempt in server.client.studies.trial(study, number).attempts]


@contextmanager
def plain_optuna(url: str, study: str = "tiny") -> Iterator[optuna.Study]:
    """The study as plain Optuna opens it."""
    storage = RDBStorage(url)
    try:
        yield optuna.load_study(study_name=study, storage=storage)
    finally:
        storage.engine.dispose()


def reconcile(server: Server) -> str:
    """What `lmtune-server reconcile` prints of the server's database."""
    done = subprocess.run(
        [sys.executable, "-m", "service", "reconcile"],
        env={**os.environ, **server.env},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120 * PATIENCE,
        check=False,
    )
    assert done.returncode == (1 if done.stdout else 0), done.stderr
    return done.stdout


def url_of(server: Server) -> str:
    return server.env["LMTUNE_DATABASE_URL"] or f"sqlite:///{server.home}/lmtune.db"


def assert_whole(server: Server, trials: int = 2, study: str = "tiny") -> None:
    """The study has ended with the asked-for trials, in Optuna's tables too."""
    view = server.client.studies.get(study)
    assert (view.state, view.reason, view.slots) == ("ENDED", "budget", trials)
    assert view.counts == {"COMPLETE": trials}
    with plain_optuna(url_of(server), study) as theirs:
        assert [trial.state.name for trial in theirs.trials] == ["COMPLETE"] * trials
        values = [trial.value for trial in theirs.trials]
        assert theirs.best_value == view.best.value == min(values)
    assert reconcile(server) == ""
