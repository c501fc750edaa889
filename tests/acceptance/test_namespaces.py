"""Workers in network namespaces of their own, one of them cut off for longer than its lease."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance import tiny
from tests.conftest import MakeWorker
from tests.harness.lmtune import Server, Worker
from tests.harness.namespaces import Cable
from tests.harness.process import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.nightly, pytest.mark.namespaces]
LEASE = 2.0  # [s]
EVERY, STEPS = 100, 1_000
PARTS = {
    "train": {"steps": STEPS, "batch_size": 4, "sequence_length": 16, "evaluate_every": EVERY},
    "budget": {"trials": 2},
}


@pytest.fixture
def server(make_server: Callable[..., Server], tmp_path: Path) -> Server:
    """A server that both namespaces reach; the tests speak to it over the loopback."""
    everywhere = {"LMTUNE_HOST": "0.0.0.0", "LMTUNE_ALLOW_HTTP": "1"}  # noqa: S104 - veth only
    server = make_server(LMTUNE_LEASE_SECONDS=f"{LEASE:g}", **everywhere)
    tiny.create(server, tmp_path, **PARTS)
    return server


@pytest.fixture
def behind(server: Server, make_worker: MakeWorker) -> Callable[[Cable], Worker]:
    """Starts a worker on the other end of a cable."""

    def start(cable: Cable) -> Worker:
        where = f"http://{cable.address}:{server.port}"
        return make_worker(server, "--server", where, enter=cable.enter)

    return start


def test_a_worker_that_is_cut_off_for_longer_than_a_lease_loses_and_doubles_nothing(
    server: Server, cables: list[Cable], behind: Callable[[Cable], Worker]
) -> None:
    """The other takes its trial over and ends it; what the first computed meanwhile is refused."""
    first, second = cables
    cut = behind(first)
    tiny.wait_for_step(server, 0, 3 * EVERY)
    first.pull()
    seen = server.client.studies.trial("tiny", 0).step
    other = behind(second)
    wait_for(lambda: server.client.studies.trial("tiny", 0).attempt == 2, 60, "a theft")
    first.plug()
    wait_for(lambda: "the trial is no longer ours" in cut.output, 60, "refusal")
    server.wait_for_end("tiny", 240)

    stolen = server.client.studies.trial("tiny", 0)
    assert tiny.attempts(server, 0) == ["lost", "ok"]
    assert stolen.attempts[1].start_step >= seen - 2 * EVERY  # from its newest checkpoint
    assert [point.step for point in stolen.curve] == list(range(EVERY, STEPS + 1, EVERY))
    tiny.assert_whole(server, trials=2)
    assert cut.running
    assert other.running
    names = {a.worker for n in range(2) for a in server.client.studies.trial("tiny", n).attempts}
    assert len(names) == 2


def test_a_cut_of_everybody_ends_nothing(
    server: Server, cables: list[Cable], behind: Callable[[Cable], Worker]
) -> None:
    """Longer than a lease: both train on, and what waited goes up once the cables are back."""
    workers = [behind(cable) for cable in cables]
    for number in range(2):
        tiny.wait_for_step(server, number, 2 * EVERY)
    for cable in cables:
        cable.pull()
    time.sleep(2.5 * LEASE)
    for cable in cables:
        cable.plug()
    server.wait_for_end("tiny", 240)
    assert [tiny.attempts(server, number) for number in range(2)] == [["ok"]] * 2
    tiny.assert_whole(server, trials=2)
    assert all(worker.running for worker in workers)
