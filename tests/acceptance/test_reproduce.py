"""`lmtune reproduce`: a trial is trained again alone, and compared loss by loss."""

from __future__ import annotations

import sqlite3
import subprocess
from pathlib import Path

from tests.acceptance import tiny
from tests.harness.lmtune import Server

PARTS = {
    "train": {"steps": 60, "batch_size": 8, "sequence_length": 32, "evaluate_every": 20},
    "budget": {"trials": 1},
}


def reproduce(server: Server, trial: int) -> subprocess.CompletedProcess[str]:
    return tiny.lmtune(server, "reproduce", "tiny", str(trial))


def test_a_trial_is_trained_again_and_its_losses_compared(
    make_server, make_worker, tmp_path: Path
) -> None:
    server = make_server()
    tiny.create(server, tmp_path, **PARTS)
    make_worker(server)
    server.wait_for_end("tiny", 120)
    same = reproduce(server, 0)
    assert same.returncode == 0, same.stderr
    assert same.stdout.splitlines()[-1] == "bit-equal: all 3 losses are the same"
    assert " in attempt 1, " not in same.stdout
    environment = server.client.studies.trial("tiny", 0).attempts[0].environment
    assert environment["recipe"]["train"]["steps"] == 60
    assert {"torch", "python", "numpy", "git_commit", "driver", "threads"} <= environment.keys()

    another_machine = (
        "update lmtune_attempts set environment = json_set(environment, '$.torch', '0.1',"
        " '$.devices', 2, '$.emulated', json('true'), '$.numpy', '0.2', '$.device', 'cuda')",
        "update lmtune_reports set body = json_set(body, '$.metrics.validation_loss', 9.5)"
        " where step = 40",
        "update lmtune_reports set body = json_set(body, '$.metrics.batch_parts', 4)"
        " where step > 20",
    )
    database = sqlite3.connect(server.home / "lmtune.db", isolation_level=None)
    assert [database.execute(words).rowcount for words in another_machine] == [1, 1, 2]
    database.close()
    other = reproduce(server, 0)
    assert other.returncode == 1, other.stderr
    *facts, last = other.stdout.splitlines()
    assert last.startswith("not bit-equal: 1 of 3 losses differ, first at step 40")
    assert any(fact.startswith("torch: 0.1 in attempt 1, ") for fact in facts)
    assert any(fact.startswith("numpy: 0.2 in attempt 1, ") for fact in facts)
    assert {
        "devices: 2 in attempt 1, 1 now",
        "emulated: True in attempt 1, False now",
        "device: cuda in attempt 1, cpu now",
        "batch_parts: 4 at step 40, 1 now",
    } <= set(facts)
    assert any("dropout draws other masks" in fact for fact in facts)
    assert any("without train.deterministic" in fact for fact in facts)


def test_a_trial_that_is_not_there_is_one_line(make_server, tmp_path: Path) -> None:
    server = make_server()
    tiny.create(server, tmp_path, **PARTS)
    done = reproduce(server, 7)
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
