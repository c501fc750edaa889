"""A trial that waited at a rung and was promoted: trained as if it had never waited."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.acceptance import tiny
from tests.harness.lmtune import Server
from tests.harness.process import PATIENCE, ROOT, wait_for

EVERY, RUNG, STEPS = 150, 300, 600  # the next rung would be the end
PARTS = {
    "train": {"steps": STEPS, "batch_size": 8, "sequence_length": 32, "evaluate_every": EVERY},
    "search": {"learning_rate": {"log": [1.0e-7, 1.0e-1]}, "dropout": {"uniform": [0.1, 0.3]}},
    "scheduler": {"kind": "asha", "mode": "promote", "min_steps": RUNG, "reduction_factor": 2},
    "budget": {"trials": 2},
}


def state(server: Server, number: int) -> str:
    return {view.number: str(view.state) for view in server.client.studies.trials("tiny")}[number]


def test_another_worker_goes_on_from_the_rung_with_the_same_losses(
    make_server, make_worker, tmp_path: Path
) -> None:
    server = make_server()
    tiny.create(server, tmp_path, **PARTS)
    for rate in (1e-2, 1e-6):  # the second learns nothing: it makes room for the first
        server.client.studies.enqueue("tiny", {"learning_rate": rate})
    first = make_worker(server, "--name", "first")
    wait_for(lambda: state(server, 0) != "WAITING", 60, "worker for trial 0")
    (worker,) = server.client.workers()
    server.client.http.post(f"/workers/{worker.id}/drain")  # the other trial is not for it
    wait_for(lambda: state(server, 0) == "PAUSED", 120, "trial 0 waits at its rung")
    assert first.stop() == 0
    make_worker(server, "--name", "second")
    server.wait_for_end("tiny", 120)

    promoted = server.client.studies.trial("tiny", 0)
    assert [a.outcome for a in promoted.attempts] == ["paused", "ok"]
    assert [a.worker for a in promoted.attempts] == ["first", "second"]
    begun = [a.start_step for a in promoted.attempts]
    assert (begun[0], RUNG <= begun[1] < STEPS) == (0, True)  # it trained on until it heard
    assert promoted.state == "COMPLETE"
    assert state(server, 1) == "PRUNED"  # it waited to the end
    assert [point.step for point in promoted.curve] == list(range(EVERY, STEPS + 1, EVERY))

    undisturbed = subprocess.run(
        [sys.executable, "-m", "studies.cli", "reproduce", "tiny", "0"],
        env={**os.environ, **server.env}, cwd=ROOT, capture_output=True, text=True,
        timeout=120 * PATIENCE, check=False,
    )  # fmt: skip
    assert undisturbed.returncode == 0, undisturbed.stdout + undisturbed.stderr
    assert undisturbed.stdout.splitlines()[-1] == "bit-equal: all 4 losses are the same"
