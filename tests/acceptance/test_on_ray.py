"""A study whose workers Ray runs on three nodes; one node is killed, and the study ends whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.acceptance import tiny
from tests.conftest import MakeServer
from tests.harness.process import wait_for

if TYPE_CHECKING:
    from tests.harness.ray_cluster import RayCluster

pytestmark = [pytest.mark.slow, pytest.mark.ray]
TRIALS = 7  # more than workers: who ends one has another when the last comes, or a node dies


def test_a_study_on_three_nodes_ends_whole_though_one_is_killed(
    make_server: MakeServer, ray_cluster: RayCluster, tmp_path: Path
) -> None:
    options = {"address": ray_cluster.address, "num_gpus": 0}
    server = make_server(
        LMTUNE_LAUNCHER="ray",
        LMTUNE_LAUNCHER_OPTIONS=json.dumps(options),
        LMTUNE_WORKERS="3",
        LMTUNE_LEASE_SECONDS="600",  # who waits for a lease to run out fails this test
    )
    train = {"steps": 1_400, "batch_size": 8, "sequence_length": 32, "evaluate_every": tiny.EVERY}
    tiny.create(server, tmp_path, train=train, budget={"trials": TRIALS})

    def training() -> list[int]:
        views = server.client.studies.trials("tiny")
        return [v.number for v in views if v.state == "RUNNING" and v.step >= tiny.EVERY]

    wait_for(lambda: len(training()) == 3, 180, "three trials that train")
    ray_cluster.kill_node()
    server.wait_for_end("tiny", 240)
    tiny.assert_whole(server, TRIALS)
    ends = [tiny.attempts(server, number) for number in range(TRIALS)]
    assert sum("lost" in each for each in ends) == 1
    assert all(each[-1] == "ok" for each in ends)

    def nobody() -> bool:
        return all(worker.state in ("gone", "lost") for worker in server.client.workers())

    wait_for(nobody, 60, "workers' end at the study's")
    assert len({worker.name for worker in server.client.workers()}) >= 3
