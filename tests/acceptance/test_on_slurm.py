"""A study on Slurm: a job gives way, one is cancelled, a node dies; it ends whole."""

from __future__ import annotations

import json
from collections.abc import Collection
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

pytestmark = [pytest.mark.slow, pytest.mark.slurm, pytest.mark.nightly]
TRIALS = 4


def training(server: Server) -> dict[int, str]:
    """The workers whose trials have a checkpoint behind them, by trial."""
    views = [v for v in server.client.studies.trials("tiny") if v.state == "RUNNING"]
    return {v.number: v.worker for v in views if v.step >= tiny.EVERY and v.worker}


def worker(server: Server, name: str) -> WorkerView:
    return next(each for each in server.client.workers() if each.name == name)


def three(trials: dict[int, str]) -> dict[int, str] | None:
    return trials if len(trials) == 3 else None


def ended(server: Server, numbers: Collection[int], outcome: Outcome) -> list[int]:
    """Those of the trials that have an attempt which ended so."""
    return [number for number in numbers if outcome in tiny.attempts(server, number)]


def preempt_one(server: Server, cluster: SlurmCluster, numbers: Collection[int]) -> int:
    """Has a job of a higher partition take a node for a while; returns whose trial gave way."""
    job = cluster.ask(
        "sbatch", "--parsable", "--partition=high", "--gres=gpu:1", "--output=/dev/null",
        "--wrap=sleep 600",
    )  # fmt: skip
    (number,) = wait_for(
        lambda: ended(server, numbers, Outcome.PREEMPTED), 60, "checkpoint of who gives way"
    )
    cluster.ask("scancel", job)
    return number


def test_jobs_that_give_way_or_are_cancelled_and_a_dead_node_lose_nothing(
    make_server: MakeServer, slurm_cluster: SlurmCluster, tmp_path: Path
) -> None:
    server = make_server(
        LMTUNE_LAUNCHER="slurm",
        LMTUNE_LAUNCHER_OPTIONS=json.dumps({"cpus": 1, "poll": 1, "partition": "low"}),
        LMTUNE_WORKERS="3",
        LMTUNE_LEASE_SECONDS="600",  # who waits for a lease to run out fails this test
        OMP_NUM_THREADS="1",
    )
    train = {"steps": 6_000, "batch_size": 8, "sequence_length": 32, "evaluate_every": tiny.EVERY}
    tiny.create(server, tmp_path, train=train, budget={"trials": TRIALS})
    held = wait_for(lambda: three(training(server)), 180, "three trials that train")

    moved = preempt_one(server, slurm_cluster, held)  # SIGTERM, a partition's GraceTime
    (first, asked), (second, orphan) = (each for each in held.items() if each[0] != moved)
    jobs = json.loads((server.home / "workers-slurm.json").read_text())["lives"].values()
    job = {each["name"]: each["job"] for each in jobs}
    pid = worker(server, orphan).pid
    node = slurm_cluster.ask("squeue", "-h", "-j", job[orphan], "-o", "%N")

    slurm_cluster.ask("scancel", job[asked])  # SIGTERM, and SIGKILL after KillWait
    slurm_cluster.kill_node(node)
    assert psutil.pid_exists(pid)  # nobody ended it: an orphan
    wait_for(
        lambda: ended(server, [first], Outcome.PREEMPTED), 60, "the cancelled one's checkpoint"
    )
    wait_for(lambda: ended(server, [second], Outcome.LOST), 120, "word of the node's death")
    wait_for(lambda: not psutil.pid_exists(pid), 60, "end of the orphan, by the fence")

    server.wait_for_end("tiny", 240)
    tiny.assert_whole(server, TRIALS)
    for number in held:
        attempts = server.client.studies.trial("tiny", number).attempts
        assert attempts[-1].start_step >= tiny.EVERY  # from its checkpoint
        assert attempts[-1].worker not in held.values()
    wait_for(lambda: slurm_cluster.ask("squeue", "-h") == "", 90, "jobs' end at the study's")
