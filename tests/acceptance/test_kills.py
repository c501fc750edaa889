"""Workers and servers killed on PostgreSQL: every loss is the one of an undisturbed run on SQLite.

On SQLite test_recovery.py and test_forty_kills.py do the same.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import optuna
import pytest

from studies.spec import StudySpec, parse_spec
from tests.harness.process import wait_for

if TYPE_CHECKING:
    from tests.conftest import MakeServer
    from tests.harness.lmtune import Server
    from tests.harness.postgres import Postgres

pytestmark = [pytest.mark.slow, pytest.mark.nightly, pytest.mark.postgres]
TRIALS = 3
LEASE = "4"  # [s]


def spec() -> StudySpec:
    """A study whose trials last some seconds and do not depend on each other's results."""
    return parse_spec(
        {
            "name": "killed",
            "data": {"builtin": "stdlib", "validation_fraction": 0.01},
            "model": {"kind": "lstm", "embedding_dim": 32, "hidden_dim": 64, "dropout": 0.1},
            "train": {"steps": 400, "batch_size": 16, "sequence_length": 32, "evaluate_every": 40},
            "search": {"learning_rate": {"log": [1e-3, 1e-1]}},
            "sampler": {"kind": "random", "seed": 3},
            "budget": {"trials": TRIALS},
        }
    )


def losses(server: Server) -> list[float | None]:
    return [trial.value for trial in server.client.studies.trials("killed")]


def busy_worker(server: Server) -> tuple[int, int] | None:
    """Returns (pid, trial) of a worker whose trial has a checkpoint behind it."""
    client = server.client
    busy = [(w.pid, w.trial) for w in client.workers() if w.trial is not None]
    far = [(pid, n) for pid, n in busy if client.studies.trial("killed", n).step >= 80]
    return far[0] if far else None


def reconcile(server: Server, database_url: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "LMTUNE_HOME": str(server.home), "LMTUNE_DATABASE_URL": database_url}
    command = [sys.executable, "-m", "service", "reconcile"]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[float | None]:
    """The final losses of the study when nothing is killed."""
    from tests.harness.lmtune import Server

    home = tmp_path_factory.mktemp("undisturbed")
    server = Server(home, "", {"LMTUNE_WORKERS": "2", "LMTUNE_LEASE_SECONDS": LEASE})
    server.start()
    try:
        server.client.studies.create(spec())
        server.wait_for_end("killed", 180)
        return losses(server)
    finally:
        server.stop()


def test_a_killed_worker_and_a_killed_server_lose_nothing(
    make_server: MakeServer, postgres: Postgres, undisturbed: list[float | None]
) -> None:
    database_url = postgres.database()
    server = make_server(database_url, LMTUNE_WORKERS="2", LMTUNE_LEASE_SECONDS=LEASE)
    server.client.studies.create(spec())

    pid, number = wait_for(lambda: busy_worker(server), 120, "a trial with a checkpoint")
    os.kill(pid, signal.SIGKILL)
    wait_for(
        lambda: server.client.studies.trial("killed", number).attempt == 2, 60, "a second attempt"
    )
    server.kill()
    server.start()
    study = server.wait_for_end("killed", 180)

    assert study.counts == {"COMPLETE": TRIALS}
    attempts = server.client.studies.trial("killed", number).attempts
    assert attempts[0].outcome == "lost"
    assert attempts[1].start_step > 0, "it started over instead of resuming"
    assert losses(server) == undisturbed  # bit for bit, on SQLite and on PostgreSQL
    server.stop()

    checked = reconcile(server, database_url)
    assert (checked.returncode, checked.stdout) == (0, "")
    storage = optuna.storages.RDBStorage(database_url)
    stored = optuna.load_study(study_name="killed", storage=storage).trials
    storage.engine.dispose()
    assert [trial.value for trial in stored] == undisturbed
    assert {trial.state.name for trial in stored} == {"COMPLETE"}
    assert [len(trial.intermediate_values) for trial in stored] == [10] * TRIALS
