"""A study on three nodes of Slurm: a job is cancelled, a node dies, and it ends whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from studies.trial import Outcome
from tests.acceptance import tiny
from tests.conftest import MakeServer
from tests.harness.process import wait_for

if TYPE_CHECKING:
    from studies.wire import WorkerView
    from tests.harness.lmtune import Server
    from tests.harness.slurm_cluster import SlurmCluster

pytestmark = [pytest.mark.slow, pytest.mark.slurm]
TRIALS = 4


def training(server: Server) -> dict[int, str]:
    """The workers whose trials have a checkpoint behind them, by trial."""
    views = [v for v in server.client.studies.trials("tiny") if v.state == "RUNNING"]
    return {v.number: v.worker for v in views if v.step >= tiny.EVERY and v.worker}


def worker(server: Server, name: str) -> WorkerView:
    return next(each for each in server.client.workers() if each.name == name)


def ends(server: Server, number: int, outcome: Outcome) -> bool:
    return outcome in tiny.attempts(server, number)


def test_a_cancelled_job_and_a_dead_node_lose_nothing(
    make_server: MakeServer, slurm_cluster: SlurmCluster, tmp_path: Path
) -> None:
    server = make_server(
        LMTUNE_LAUNCHER="slurm",
        LMTUNE_LAUNCHER_OPTIONS=json.dumps({"cpus": 1, "poll": 1, "partition": "low"}),
        LMTUNE_WORKERS="3",
        LMTUNE_LEASE_SECONDS="600",  # who waits for a lease to run out fails this test
        OMP_NUM_THREADS="1",
    )
    tiny.create(server, tmp_path, budget={"trials": TRIALS})
    wait_for(lambda: len(training(server)) == 3, 180, "three trials that train")
    (first, asked), (second, orphan) = sorted(training(server).items())[:2]
    jobs = json.loads((server.home / "workers-slurm.json").read_text())["lives"].values()
    job = {each["name"]: each["job"] for each in jobs}

    slurm_cluster.ask("scancel", job[asked])  # SIGTERM, and SIGKILL after KillWait
    wait_for(lambda: ends(server, first, Outcome.PREEMPTED), 60, "checkpoint of the cancelled")

    pid = worker(server, orphan).pid
    node = slurm_cluster.ask("squeue", "-h", "-j", job[orphan], "-o", "%N")
    slurm_cluster.kill_node(node)
    assert psutil.pid_exists(pid)  # nobody ended it: an orphan
    wait_for(lambda: ends(server, second, Outcome.LOST), 120, "word of the node's death")
    wait_for(lambda: not psutil.pid_exists(pid), 60, "end of the orphan, by the fence")

    server.wait_for_end("tiny", 240)
    tiny.assert_whole(server, TRIALS)
    for number in (first, second):
        attempts = server.client.studies.trial("tiny", number).attempts
        assert attempts[-1].start_step >= tiny.EVERY  # from its checkpoint
        assert attempts[-1].worker not in (asked, orphan)
    wait_for(lambda: slurm_cluster.ask("squeue", "-h") == "", 90, "jobs' end at the study's")
