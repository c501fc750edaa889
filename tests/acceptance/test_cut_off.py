"""Workers that cannot reach their server: nothing is lost of what they train, or counted twice."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance import tiny
from tests.acceptance.line import Line
from tests.harness.lmtune import Server, Worker
from tests.harness.process import wait_for

pytestmark = pytest.mark.slow
LEASE = 2.0  # [s]
EVERY, STEPS = 100, 2_500
PARTS = {
    "train": {"steps": STEPS, "batch_size": 4, "sequence_length": 16, "evaluate_every": EVERY},
    "budget": {"trials": 1},
}
END = 300.0  # [s] a study may take on a busy machine


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What the study comes to when nothing is cut."""
    return tiny.undisturbed(tmp_path_factory.mktemp("undisturbed"), END, **PARTS)


@pytest.fixture
def server(make_server: Callable[..., Server], tmp_path: Path) -> Server:
    server = make_server(LMTUNE_LEASE_SECONDS=f"{LEASE:g}")
    tiny.create(server, tmp_path, **PARTS)
    return server


@pytest.fixture
def line(server: Server) -> Iterator[Line]:
    line = Line(server)
    yield line
    line.close()


@pytest.fixture
def worker(server: Server, line: Line, make_worker: Callable[..., Worker]) -> Worker:
    """A worker behind the line, in the middle of the trial."""
    worker = make_worker(server, "--server", line.url)
    tiny.wait_for_step(server, 0, 3 * EVERY)
    return worker


def test_a_partition_longer_than_the_lease_costs_nothing_while_nobody_else_is_free(
    server: Server, line: Line, worker: Worker, undisturbed: dict
) -> None:
    line.cut()
    time.sleep(LEASE)  # what had passed before is written by now
    seen = server.client.studies.trial("tiny", 0).step
    time.sleep(2 * LEASE)
    assert server.client.studies.trial("tiny", 0).step == seen
    line.heal()
    server.wait_for_end("tiny", END)
    assert tiny.outcome(server) == undisturbed
    assert tiny.attempts(server, 0) == ["ok"]
    # That the server answers again is said by a heartbeat: where training ended meanwhile, the
    # reports that waited may be answered first and end the attempt.
    for said in ("training goes on", "the lease is over", "attempt ended: ok"):
        wait_for(lambda said=said: said in worker.output, 20, said)
    tiny.assert_whole(server, trials=1)


@pytest.mark.nightly
def test_a_connection_that_loses_answers_costs_nothing(
    server: Server, line: Line, worker: Worker, undisturbed: dict
) -> None:
    line.lose_answers()
    time.sleep(2.5 * LEASE)
    assert server.client.studies.trial("tiny", 0).state == "RUNNING"
    line.heal()
    server.wait_for_end("tiny", END)
    assert tiny.outcome(server) == undisturbed
    assert tiny.attempts(server, 0) == ["ok"]
    tiny.assert_whole(server, trials=1)


def test_after_a_theft_the_spooled_reports_are_refused_and_the_device_is_free(
    server: Server, line: Line, worker: Worker, make_worker: Callable[..., Worker], undisturbed
) -> None:
    line.cut()
    make_worker(server)
    wait_for(lambda: server.client.studies.trial("tiny", 0).attempt == 2, 120, "a theft")
    tiny.wait_for_step(server, 0, 2 * EVERY)
    line.heal()
    # The next heartbeat, half a second later, is refused; the rest is for a busy machine.
    wait_for(lambda: "the trial is no longer ours" in worker.output, 10, "refusal")
    server.wait_for_end("tiny", END)
    assert tiny.outcome(server) == undisturbed
    assert tiny.attempts(server, 0) == ["lost", "ok"]
    detail = server.client.studies.trial("tiny", 0)
    after = [p.attempt for p in detail.curve if p.step > detail.attempts[1].start_step]
    assert set(after) == {2}
    assert worker.running
    tiny.assert_whole(server, trials=1)


@pytest.mark.nightly
def test_a_grace_that_is_cut_short_in_an_upload_leaves_the_checkpoint_before(
    server: Server, line: Line, worker: Worker, make_worker: Callable[..., Worker], undisturbed
) -> None:
    line.slow_uploads(2_000)
    worker.signal(signal.SIGTERM)
    assert line.upload_begun(60)
    worker.kill_tree()
    line.heal()
    make_worker(server)
    server.wait_for_end("tiny", END)
    assert tiny.outcome(server) == undisturbed
    assert tiny.attempts(server, 0) == ["lost", "ok"]
    start = server.client.studies.trial("tiny", 0).attempts[1].start_step
    assert start >= EVERY
    assert start % EVERY == 0  # not the one of the grace
    tiny.assert_whole(server, trials=1)
