"""Kills in the middle: whatever dies, the study ends as if nothing had happened.

Each test compares with the same study run undisturbed: on the CPU a trial that was taken up again
from its checkpoint reaches the same losses, bit for bit.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.acceptance import tiny
from tests.acceptance.tiny import EVERY, STEPS
from tests.harness.lmtune import Server
from tests.harness.process import gone, wait_for

slow = pytest.mark.slow  # together they take minutes; the two that must never break stay quick
LEASE = "2"
END = 240.0  # [s] a study may take on a busy machine


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What the study comes to when nothing dies."""
    return tiny.undisturbed(tmp_path_factory.mktemp("undisturbed"), END)


def halfway(server: Server, number: int = 0) -> None:
    """Returns when the trial has a checkpoint and is far from its end.

    As soon as it can be said: where a test waits for one after the other, the first trains on.
    """
    assert tiny.wait_for_step(server, number, 2 * EVERY).step < STEPS


def descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def test_a_killed_worker_costs_nothing(make_server, make_worker, tmp_path, undisturbed) -> None:
    server = make_server(LMTUNE_LEASE_SECONDS=LEASE)
    workers = {name: make_worker(server, "--name", name) for name in ("one", "two")}
    tiny.wait_for_workers(server, 2)
    tiny.create(server, tmp_path)
    for number in (0, 1):
        halfway(server, number)
    workers[server.client.studies.trial("tiny", 0).worker].kill()
    server.wait_for_end("tiny", END)
    assert tiny.outcome(server) == undisturbed
    trial = server.client.studies.trial("tiny", 0)
    assert [attempt.outcome for attempt in trial.attempts] == ["lost", "ok"]
    assert trial.attempts[1].start_step >= EVERY
    assert tiny.attempts(server, 1) == ["ok"]
    tiny.assert_whole(server)


def test_a_killed_server_costs_nothing(make_server, make_worker, tmp_path, undisturbed) -> None:
    server = make_server(LMTUNE_LEASE_SECONDS=LEASE)
    workers = [make_worker(server), make_worker(server)]
    tiny.wait_for_workers(server, 2)
    tiny.create(server, tmp_path)
    for number in (0, 1):
        halfway(server, number)
    server.kill()
    time.sleep(5)  # longer than a write gives: nothing may expire while no server ticks
    server.start()
    server.wait_for_end("tiny", END)
    assert tiny.outcome(server) == undisturbed
    assert [tiny.attempts(server, number) for number in range(2)] == [["ok"]] * 2
    assert all(worker.running for worker in workers)
    tiny.assert_whole(server)


@slow
def test_a_worker_that_is_asked_to_go_hands_its_trial_on(
    make_server, make_worker, tmp_path, undisturbed
) -> None:
    server = make_server(LMTUNE_LEASE_SECONDS="60")  # nobody waits for it
    tiny.create(server, tmp_path)
    worker = make_worker(server)
    halfway(server)
    assert worker.stop() == 0
    trial = server.client.studies.trial("tiny", 0)
    assert (trial.state, tiny.attempts(server, 0)) == ("WAITING", ["preempted"])
    assert [view.state for view in server.client.workers()] == ["gone"]
    make_worker(server)
    server.wait_for_end("tiny", END)
    assert tiny.outcome(server) == undisturbed
    trial = server.client.studies.trial("tiny", 0)
    assert [attempt.outcome for attempt in trial.attempts] == ["preempted", "ok"]
    assert 2 * EVERY <= trial.attempts[1].start_step < STEPS
    tiny.assert_whole(server)


@slow
@pytest.mark.nightly
def test_a_killed_training_process_costs_nothing(
    make_server, make_worker, tmp_path, undisturbed
) -> None:
    server = make_server(LMTUNE_LEASE_SECONDS="60")
    tiny.create(server, tmp_path)
    worker = make_worker(server)
    halfway(server)
    for child in descendants(worker.pid):
        child.kill()
    server.wait_for_end("tiny", END)
    assert worker.running
    assert tiny.outcome(server) == undisturbed
    trial = server.client.studies.trial("tiny", 0)
    assert [attempt.outcome for attempt in trial.attempts] == ["error", "ok"]
    assert trial.attempts[1].start_step >= EVERY
    tiny.assert_whole(server)


@slow
@pytest.mark.nightly
def test_a_power_cut_costs_nothing(make_server, make_worker, tmp_path, undisturbed) -> None:
    server = make_server(LMTUNE_LEASE_SECONDS=LEASE)
    tiny.create(server, tmp_path)
    worker = make_worker(server)
    halfway(server)
    worker.kill_tree()
    server.kill()
    server.start()
    make_worker(server)
    server.wait_for_end("tiny", END)
    assert tiny.outcome(server) == undisturbed
    assert tiny.attempts(server, 0) == ["lost", "ok"]
    tiny.assert_whole(server)


# ------------------------------------------------------------------ the server's own workers


def launched(server: Server) -> dict[str, int]:
    """The pid of each worker that the server started, by name."""
    pids = {view.name: view.pid for view in server.client.workers()}
    return {name: pids[name] for name in re.findall(r"worker (\S+) started", server.output)}


def with_workers(make_server: Callable[..., Server], folder: Path) -> tuple[Server, str, int]:
    """A server with two workers of its own, and the name and pid of who trains trial 0.

    Their lease is a minute: no test here has the time to wait for it.
    """
    server = make_server(LMTUNE_LEASE_SECONDS="60", LMTUNE_WORKERS="2")
    tiny.wait_for_workers(server, 2)
    tiny.create(server, folder)
    for number in (0, 1):
        halfway(server, number)
    name = server.client.studies.trial("tiny", 0).worker
    return server, name, launched(server)[name]


@slow
def test_the_next_server_adopts_living_workers(make_server, tmp_path, undisturbed) -> None:
    server, *_ = with_workers(make_server, tmp_path)
    before = launched(server)
    server.kill()
    server.start()
    server.wait_for_end("tiny", END)
    assert tiny.outcome(server) == undisturbed
    assert launched(server) == before
    adopted = lambda: all(f"worker {name} goes on" in server.output for name in before)  # noqa: E731
    wait_for(adopted, 20, "adoption")  # by a sweep; the trials may have ended before
    assert [tiny.attempts(server, number) for number in range(2)] == [["ok"]] * 2
    tiny.assert_whole(server)
    assert server.stop() == 0
    assert all(gone(pid) for pid in before.values())


@slow
@pytest.mark.nightly
def test_a_launched_worker_that_is_killed_is_replaced_at_once(
    make_server, tmp_path, undisturbed
) -> None:
    server, name, pid = with_workers(make_server, tmp_path)
    children = descendants(pid)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: tiny.attempts(server, 0)[:1] == ["lost"], 20, "loss of the worker")
    wait_for(lambda: all(gone(child.pid) for child in children), 20, "end of its children")
    server.wait_for_end("tiny", END)
    assert tiny.outcome(server) == undisturbed
    assert tiny.attempts(server, 0) == ["lost", "ok"]
    states = {view.name: view.state for view in server.client.workers()}
    assert states.pop(name) == "gone"
    assert len(launched(server)) == 3
    tiny.assert_whole(server)


@slow
@pytest.mark.nightly
def test_workers_that_died_with_their_server_are_replaced(
    make_server, tmp_path, undisturbed
) -> None:
    server, *_ = with_workers(make_server, tmp_path)
    trees = [psutil.Process(pid) for pid in launched(server).values()]
    trees += [child for process in trees for child in process.children(recursive=True)]
    server.kill()
    for process in trees:
        process.kill()
    server.start()
    server.wait_for_end("tiny", END)
    assert tiny.outcome(server) == undisturbed
    assert [tiny.attempts(server, number) for number in (0, 1)] == [["lost", "ok"]] * 2
    reason = server.client.studies.trial("tiny", 0).attempts[0].reason
    assert reason == "the worker is gone: it ended while no server watched"
    tiny.assert_whole(server)


@slow
def test_a_server_that_is_asked_to_go_lets_its_workers_checkpoint(
    make_server, tmp_path, undisturbed
) -> None:
    server, *_ = with_workers(make_server, tmp_path)
    assert server.stop() == 0
    server.start()
    server.wait_for_end("tiny", END)
    assert tiny.outcome(server) == undisturbed
    assert [tiny.attempts(server, number) for number in (0, 1)] == [["preempted", "ok"]] * 2
    tiny.assert_whole(server)
