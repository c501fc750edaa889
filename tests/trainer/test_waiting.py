"""What waits in a worker: messages, reports on disk, calls while the server is away, folders."""

import fcntl
import logging
import os
import random
import threading
import time

import pytest

from studies.errors import ServerFailed, ServerUnreachable, Unavailable
from trainer import patience as module
from trainer.inbox import Inbox
from trainer.patience import GaveUp, Patience
from trainer.scratch import Scratch
from trainer.spool import Spool


@pytest.fixture
def inbox(tmp_path):
    inbox = Inbox()
    inbox.begin(Spool(tmp_path / "reports.jsonl"), 0)
    return inbox


def report(step):
    return {"kind": "report", "step": step, "item": {"step": step}}


def steps(message):
    assert message["kind"] == "reports"
    return [item["step"] for item in message["items"]]


def checkpoint(path, best=False):
    path.write_bytes(b"x")
    return {"kind": "checkpoint", "path": str(path), "best": best}


# ---------------------------------------------------------------- the inbox


def test_reports_that_wait_come_out_together_in_order_a_thousand_at_most(inbox):
    for step in range(1, 2_501):
        inbox.put(report(step))
    assert inbox.step == 2_500
    sent = [steps(inbox.get(0)) for _ in range(3)]
    assert [len(part) for part in sent] == [1_000, 1_000, 500]
    assert [*sent[0], *sent[1], *sent[2]] == list(range(1, 2_501))
    assert inbox.get(0) is None


def test_a_checkpoint_stays_behind_the_reports_before_it(inbox, tmp_path):
    inbox.put(report(1))
    inbox.put(checkpoint(tmp_path / "1", best=True))
    inbox.put(report(2))
    inbox.put(report(3))
    inbox.put(checkpoint(tmp_path / "3"))
    seen = [inbox.get(0) for _ in range(4)]
    assert [steps(seen[0]), steps(seen[2])] == [[1], [2, 3]]
    assert [seen[1]["path"], seen[3]["path"]] == [str(tmp_path / "1"), str(tmp_path / "3")]


def test_an_overtaken_checkpoint_is_dropped_with_its_file(inbox, tmp_path):
    inbox.put(checkpoint(tmp_path / "1"))
    inbox.put(report(1))
    inbox.put(checkpoint(tmp_path / "2"))
    assert [inbox.get(0)["kind"], inbox.get(0)["path"]] == ["reports", str(tmp_path / "2")]
    assert inbox.get(0) is None
    assert not (tmp_path / "1").exists()


def test_the_best_checkpoint_gives_way_to_a_better_one_only(inbox, tmp_path):
    for name, best in (("1", True), ("2", True), ("3", False), ("4", False)):
        inbox.put(checkpoint(tmp_path / name, best))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "4"]


def test_a_nudge_wakes_who_waits(inbox):
    threading.Timer(0.05, inbox.put, [{"kind": "nudge"}]).start()
    assert inbox.get()["kind"] == "nudge"


# ---------------------------------------------------------------- the spool


@pytest.mark.parametrize("seed", range(20))
def test_a_spool_is_a_queue_whatever_the_disk_does(tmp_path, seed, monkeypatch):
    draw, spool = random.Random(seed), Spool(tmp_path / "spool")
    real, full = type(tmp_path).open, []

    def open_(path, mode, **kwargs):
        if full and mode != "rb":
            return real(type(tmp_path)("/dev/full"), "wb", **kwargs)  # a disk with no space left
        return real(path, mode, **kwargs)

    monkeypatch.setattr(type(tmp_path), "open", open_)
    put = got = 0
    for _ in range(300):
        full[:] = [True] if draw.random() < 0.3 else []
        if draw.random() < 0.5:
            spool.append({"n": put})
            put += 1
        else:
            taken = [item["n"] for item in spool.take(draw.randint(1, 5))]
            assert taken == list(range(got, min(put, got + len(taken))))
            assert taken or got == put
            got += len(taken)
    assert [item["n"] for item in spool.take(1_000)] == list(range(got, put))


def test_a_spool_is_on_disk_until_it_is_taken(tmp_path):
    spool = Spool(tmp_path / "spool")
    for n in range(10_000):
        spool.append(n)
    assert (tmp_path / "spool").stat().st_size > 40_000
    assert not spool._memory
    assert spool.take(10_000) == list(range(10_000))
    spool.append("again")
    assert spool.take(2) == ["again"]


# ---------------------------------------------------------------- patience


@pytest.fixture
def clock(monkeypatch):
    """A clock that every wait moves on at once; the jitter is always the longest."""
    clock = Clock()
    monkeypatch.setattr(module.time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(module.time, "sleep", clock.sleep)
    monkeypatch.setattr(threading.Event, "wait", lambda _, seconds: clock.sleep(seconds))
    monkeypatch.setattr(module.random, "uniform", lambda low, high: high)
    return clock


class Clock:
    now = 0.0

    def __init__(self):
        self.waits = []

    def sleep(self, seconds):
        self.now += seconds
        self.waits += [seconds] if seconds else []


def failing(error):
    def call():
        raise error

    return call


def test_patience_waits_longer_each_time_and_ends(clock):
    with pytest.raises(GaveUp, match="no answer"):
        Patience(60.0).call(failing(ServerUnreachable("no answer")))
    assert clock.waits[:7] == [1, 2, 4, 8, 16, 32, 60]
    assert clock.now == pytest.approx(1_800, abs=60)


def test_what_the_server_asks_for_is_the_least_wait(clock):
    busy = Unavailable("busy")
    busy.retry_after = 7.0
    with pytest.raises(GaveUp, match="busy"):
        Patience(60.0).call(failing(busy))
    assert clock.waits[:6] == [7, 1, 7, 2, 7, 4]


def test_a_call_of_an_attempt_that_fails_again_and_again_has_failed(clock):
    with pytest.raises(ServerFailed, match="error 7"):
        Patience(60.0).call(failing(ServerFailed("error 7")), module.FAILING_LEASES)
    assert 120 < clock.now < 240


def test_patience_is_short_once_asked_to_go(clock):
    patience = Patience(60.0)
    patience.hurry()
    with pytest.raises(GaveUp):
        patience.call(failing(ServerUnreachable("no answer")))
    assert 60 < clock.now < 180


def test_who_waits_tries_again_as_soon_as_the_server_is_heard():
    patience, tries = Patience(2_000.0), []

    def call():
        tries.append(time.monotonic())
        if len(tries) < 8:
            threading.Timer(0.01, patience.retry).start()
            raise ServerUnreachable("no answer")
        return "answer"

    assert patience.call(call) == "answer"
    assert tries[-1] - tries[0] < 5  # by itself it would wait for 64 s and more, on average


# ---------------------------------------------------------------- folders


def test_a_worker_removes_the_folders_of_the_dead_and_leaves_those_of_the_living(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    dead, living = tmp_path / "1-dead", tmp_path / "2-living"
    for folder in (dead, living):
        folder.mkdir()
        (folder / "step-5.safetensors").touch()
    lock = os.open(living, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    scratch, other = Scratch(tmp_path), Scratch(tmp_path)
    assert not dead.exists()
    assert "1-dead" in caplog.text
    assert (living / "step-5.safetensors").exists()
    with scratch.attempt() as first, other.attempt() as second:
        assert first.is_dir()
        assert second.is_dir()
    scratch.close()
    other.close()
    os.close(lock)
    assert [path.name for path in tmp_path.iterdir()] == ["2-living"]
