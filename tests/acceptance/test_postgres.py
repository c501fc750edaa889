"""PostgreSQL answers as SQLite does; test_kills.py kills its workers and servers."""

from __future__ import annotations

import pytest

from tests.acceptance import tiny
from tests.acceptance.tiny import EVERY

pytestmark = pytest.mark.postgres
END = 240.0  # [s] a study may take on a busy machine
WHOLE = {
    "train": {
        "steps": 600,
        "batch_size": 8,
        "sequence_length": 32,
        "evaluate_every": 200,  # far apart: a stop is heard before the next one
        "optimizer": "adamw",
    },
    "search": {
        "learning_rate": {"log": [1.0e-4, 1.0e2]},
        "regularizer": {"choice": ["none", "l1", "l2"]},
        "lambda": {"log": [1.0e-8, 1.0e-2], "when": {"regularizer": ["l1", "l2"]}},
        "dropout": {"uniform": [0.0, 0.5]},
    },
    "sampler": {"kind": "tpe", "seed": 5, "startup_trials": 4},
    "scheduler": {"kind": "asha", "min_steps": 200, "reduction_factor": 2},
    "budget": {"trials": 10},
}


def test_the_same_study_gets_the_same_answers(make_server, make_worker, postgres, tmp_path) -> None:
    """A sampler that learns, a scheduler that stops, a condition, and rates that diverge."""
    answers, theirs = [], []
    for url in ("", postgres.database()):
        server = make_server(url)
        tiny.create(server, tmp_path, **WHOLE)
        worker = make_worker(server)
        view = server.wait_for_end("tiny", END)
        worker.stop()
        answers.append((tiny.outcome(server), view.counts, view.best, view.spec))
        with tiny.plain_optuna(tiny.url_of(server)) as study:
            theirs.append([(t.state, t.params, t.values) for t in study.trials])
        assert tiny.reconcile(server) == ""
    assert answers[0] == answers[1]
    assert theirs[0] == theirs[1]
    states = {state for state, *_ in answers[0][0].values()}
    assert {"COMPLETE", "PRUNED"} <= states


@pytest.mark.slow
@pytest.mark.nightly
def test_two_servers_share_one_database(make_server, make_worker, postgres, tmp_path) -> None:
    """A study made at one is worked on at both; blobs lie in one folder."""
    url, blobs = postgres.database(), str(tmp_path / "blobs")
    servers = [make_server(url, LMTUNE_BLOBS=blobs, LMTUNE_LEASE_SECONDS="5") for _ in range(2)]
    tiny.create(servers[0], tmp_path)
    first = make_worker(servers[0])
    tiny.wait_for_step(servers[1], 0, 3 * EVERY)
    assert first.stop() == 0
    make_worker(servers[1])
    servers[0].wait_for_end("tiny", END)
    assert tiny.outcome(servers[0]) == tiny.outcome(servers[1])
    assert tiny.attempts(servers[1], 0) == ["preempted", "ok"]
    tiny.assert_whole(servers[1])
