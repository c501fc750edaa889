"""A trial on two devices of one launched worker: processes on gloo; one is killed, it goes on."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tests.acceptance import tiny
from tests.conftest import MakeServer, MakeWorker

pytestmark = pytest.mark.slow


def trainers(pid: int) -> list[psutil.Process]:
    """The training processes of a server's worker, by the device's number."""
    below = psutil.Process(pid).children(recursive=True)
    found = [child for child in below if "trainer.child" in child.cmdline()]
    return sorted(found, key=lambda process: int(process.environ()["RANK"]))


def test_two_devices_train_one_trial_and_one_that_dies_costs_no_more_than_a_checkpoint(
    make_server: MakeServer, make_worker: MakeWorker, tmp_path: Path
) -> None:
    server = make_server(
        LMTUNE_LEASE_SECONDS="600",  # nobody waits for a lease here
        LMTUNE_WORKERS="1",
        LMTUNE_LAUNCHER_OPTIONS='{"devices": 2}',
        CUDA_VISIBLE_DEVICES="",
    )
    small = make_worker(server)
    tiny.wait_for_workers(server, 2)
    train = {"steps": 600, "batch_size": 8, "sequence_length": 32, "evaluate_every": 50}
    tiny.create(server, tmp_path, train=train, resources={"devices": 2}, budget={"trials": 1})
    tiny.wait_for_step(server, 0, 100)  # the checkpoint of step 50 is there
    first, second = trainers(server.pid)
    assert first.is_running()
    second.kill()
    server.wait_for_end("tiny", 180)
    tiny.assert_whole(server, 1)
    one, two = server.client.studies.trial("tiny", 0).attempts
    assert (one.outcome, two.outcome) == ("error", "ok")
    assert "on device 1 ended with -9" in (one.reason or "")
    assert one.worker == two.worker  # the other has too few devices
    assert one.worker.startswith("cpu0x2-")
    assert two.start_step >= 50
    assert two.environment["devices"] == 2
    assert small.stop() == 0
    assert server.stop() == 0
