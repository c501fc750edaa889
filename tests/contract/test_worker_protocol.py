"""The worker's client and the server agree: every call of the protocol over a real socket."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from studies import wire
from studies.client import Attempt, WorkerClient
from studies.errors import (
    BlobMissing,
    Conflict,
    Finished,
    InvalidInput,
    NotFound,
    StaleClaim,
    Superseded,
    Unauthorized,
    Unreported,
)
from tests.harness.process import PATIENCE
from tests.service.live import Live
from tests.service.world import LEASE, items, spec

POSTGRES = pytest.param("postgres", marks=pytest.mark.postgres)


@pytest.fixture(scope="module", params=["sqlite", POSTGRES])
def live(request, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgres").database()
    with Live(url, tmp_path_factory.mktemp("contract")) as live:
        yield live


@pytest.fixture
def study(live: Live) -> Iterator[str]:
    """A running study of this test's own; it is stopped afterwards."""
    name = f"s{secrets.token_hex(4)}"
    live.client.studies.create(spec(name))
    yield name
    live.client.studies.act(name, "stop")


class Caller:
    """A worker that speaks HTTP."""

    def __init__(self, live: Live) -> None:
        self.client: WorkerClient = live.workers
        self.name = f"worker-{secrets.token_hex(4)}"
        self.known = self.client.register(self.registration())
        self.seq = 0

    def registration(self) -> wire.RegisterBody:
        return wire.RegisterBody(
            name=self.name, host="box", pid=7, device="cpu", protocol=1, code_hash="c"
        )

    def claim(self, wait_ms: int = 0, seq: int | None = None, token: str = "") -> Attempt | None:
        self.seq = seq or self.seq + 1
        token = token or secrets.token_hex(16)
        body = wire.ClaimBody(
            seq=self.seq, lease_token=token, protocol=1, code_hash="c", wait_ms=wait_ms
        )
        grant = self.client.claim(self.known.worker_id, body).grant
        return grant and self.client.attempt(grant, token)


def finish(outcome: str, step: int, reason: str | None = None) -> wire.FinishBody:
    return wire.FinishBody(outcome=outcome, final_step=step, reason=reason)


def blob(path: Path, content: bytes) -> tuple[str, Path]:
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest(), path


def pointer(step: int, digest: str) -> wire.CheckpointBody:
    return wire.CheckpointBody(
        step=step, sha256=digest, bytes=7, code_hash="c", last_report_step=step
    )


def test_a_trial_from_claim_to_finish(live: Live, study: str, tmp_path: Path) -> None:
    attempt = Caller(live).claim()
    assert attempt.heartbeat(0, {"device": "cpu", "unigram_loss": 3.25}).decision == "continue"
    answer = attempt.report(items((10, 2.0)))
    assert (answer.accepted_through, answer.decision, answer.duplicate) == (10, "continue", False)
    assert attempt.report(items((10, 2.0))).duplicate
    digest, path = blob(tmp_path / "ck", secrets.token_bytes(7))
    attempt.upload(digest, path)
    assert attempt.checkpoint(pointer(10, digest)).decision == "continue"
    attempt.report(items((20, 1.5), (30, 1.0)))
    attempt.log("line one\n")
    attempt.log("zwei\n")
    assert attempt.finish(finish("ok", 30)).state == "COMPLETE"
    assert attempt.finish(finish("ok", 30)).state == "COMPLETE"

    shown = live.client.studies.best(study)
    assert (shown.value, shown.step, shown.attempt) == (1.0, 30, 1)
    assert [point.metrics["validation_loss"] for point in shown.curve] == [2.0, 1.5, 1.0]
    assert shown.attempts[0].environment["unigram_loss"] == 3.25
    log = live.api.get(f"/api/v1/studies/{study}/trials/0/attempts/1/log")
    assert log.text == "line one\nzwei\n"


def test_a_log_takes_whatever_a_program_prints_up_to_64_kib(live: Live, study: str) -> None:
    attempt = Caller(live).claim()
    path = f"/api/v1{attempt._path}/log"
    for said in (b"a\x00b \xff\xfe ", "é".encode() * 32_768):
        live.api.post(path, content=said, headers=attempt._headers).raise_for_status()
    refused = live.api.post(path, content=b"x" * 65_537, headers=attempt._headers)
    assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
    number = attempt.grant.number
    log = live.api.get(f"/api/v1/studies/{study}/trials/{number}/attempts/1/log")
    assert log.text == "ab \ufffd\ufffd " + "é" * 32_768
    attempt.finish(finish("preempted", 0))


def test_a_released_trial_resumes_from_its_checkpoint(live: Live, study, tmp_path) -> None:
    first, content = Caller(live).claim(), secrets.token_bytes(7)
    first.report(items((10, 2.0)))
    digest, path = blob(tmp_path / "ck", content)
    first.upload(digest, path)
    first.checkpoint(pointer(10, digest))
    assert first.finish(finish("preempted", 10)).state == "WAITING"
    second = Caller(live).claim()
    assert second.grant.attempt == 2
    assert second.grant.resume == wire.Resume(step=10, sha256=digest, bytes=7, code_hash="c")
    assert second.download(digest, tmp_path / "down") == digest
    assert (tmp_path / "down").read_bytes() == content
    assert second.resume(None).decision == "continue"
    second.report(items((10, 2.5)))


def test_refusals_come_as_the_errors_that_they_are(live: Live, study, tmp_path) -> None:
    caller = Caller(live)
    attempt = caller.claim()
    with pytest.raises(Unreported):
        attempt.finish(finish("ok", 30))
    with pytest.raises(InvalidInput, match="outcome"):
        attempt.finish(finish("lost", 0))
    attempt.report(items((10, 2.0)))
    with pytest.raises(Conflict, match="another report"):
        attempt.report(items((10, 3.0)))
    with pytest.raises(BlobMissing):
        attempt.checkpoint(pointer(10, "0" * 64))
    with pytest.raises(InvalidInput, match="sha256"):
        attempt.upload("0" * 64, blob(tmp_path / "ck", b"other")[1])
    with pytest.raises(NotFound):
        attempt.download("0" * 64, tmp_path / "none")
    thief = live.workers.attempt(attempt.grant, "0" * 32)
    with pytest.raises(Superseded):
        thief.report(items((20, 0.1)))
    attempt.finish(finish("diverged", 10, "inf"))
    with pytest.raises(Finished):
        attempt.heartbeat(11)
    assert live.client.studies.trial(study, 0).reason == "diverged: inf"
    caller.claim()
    with pytest.raises(StaleClaim):
        caller.claim(seq=1)


def test_a_wrong_upload_leaves_nothing(live: Live, study, tmp_path) -> None:
    before = sorted(live.parts.blobs.folder.rglob("*"))
    attempt = Caller(live).claim()
    with pytest.raises(InvalidInput):
        attempt.upload("1" * 64, blob(tmp_path / "ck", b"other")[1])
    assert sorted(live.parts.blobs.folder.rglob("*")) == before
    assert live.api.get(f"/api/v1/blobs/{'1' * 64}").status_code == 404


def test_a_lost_answer_is_asked_for_again(live: Live, study: str) -> None:
    caller, token = Caller(live), "a" * 32
    first = caller.claim(seq=1, token=token)
    assert caller.claim(seq=1, token=token).grant == first.grant
    assert len(list(live.client.studies.trials(study))) == 1
    again = live.workers.register(caller.registration())
    assert again == caller.known
    assert again.lease_ms == LEASE * 1_000


def test_numbers_that_are_not_finite_travel(live: Live, study: str) -> None:
    attempt = Caller(live).claim()
    for step, value in ((10, "nan"), (20, "inf"), (30, "-inf")):
        attempt.report(items((step, float(value))))
    curve = live.client.studies.trial(study, 0).curve
    assert [str(p.metrics["validation_loss"]) for p in curve] == ["nan", "inf", "-inf"]
    assert attempt.finish(finish("ok", 30)).state == "FAILED"


# ------------------------------------------------------------------ waiting


def test_nothing_to_do_is_said_at_once(live: Live) -> None:
    caller = Caller(live)
    body = {"seq": 1, "lease_token": "0" * 32, "protocol": 1, "code_hash": "c"}
    answer = live.api.post(f"/api/v1/workers/{caller.known.worker_id}/claim", json=body)
    assert (answer.status_code, answer.headers["retry-after"], answer.content) == (204, "1", b"")


def in_background(call) -> tuple[threading.Thread, list]:
    got: list = []
    thread = threading.Thread(target=lambda: got.append(call()))
    thread.start()
    return thread, got


def test_a_waiting_claim_wakes_when_a_study_comes(live: Live) -> None:
    caller = Caller(live)
    thread, got = in_background(lambda: caller.claim(wait_ms=20_000))
    time.sleep(0.3)  # it waits by now; were it late, it would find the study at once
    begun = time.monotonic()
    name = f"s{secrets.token_hex(4)}"
    live.client.studies.create(spec(name))
    thread.join(20 * PATIENCE)
    assert got[0].grant.study == name
    assert time.monotonic() - begun < 15  # not the 20 s
    live.client.studies.act(name, "stop")


def test_a_waiting_claim_wakes_when_a_lease_is_over(live: Live) -> None:
    name = f"s{secrets.token_hex(4)}"
    live.client.studies.create(spec(name, budget={"trials": 1}))
    Caller(live).claim()
    attempt = Caller(live).claim(wait_ms=20_000)
    assert (attempt.grant.study, attempt.grant.attempt) == (name, 2)
    live.client.studies.act(name, "stop")


def test_a_caller_that_hung_up_is_given_nothing(live: Live) -> None:
    caller, name = Caller(live), f"s{secrets.token_hex(4)}"
    body = {"seq": 1, "lease_token": "0" * 32, "protocol": 1, "code_hash": "c", "wait_ms": 20_000}
    with httpx.Client(headers=live.api.headers) as hasty, pytest.raises(httpx.ReadTimeout):
        hasty.post(
            f"{live.url}/api/v1/workers/{caller.known.worker_id}/claim", json=body, timeout=1
        )
    live.client.studies.create(spec(name))
    time.sleep(1.5)  # longer than a waiting claim sleeps
    assert list(live.client.studies.trials(name)) == []
    live.client.studies.act(name, "stop")


def test_a_wait_ends_with_nothing(live: Live) -> None:
    begun = time.monotonic()
    assert Caller(live).claim(wait_ms=300) is None
    assert 0.3 <= time.monotonic() - begun < 15


def test_a_retry_does_not_wait(live: Live) -> None:
    caller = Caller(live)
    assert caller.claim() is None
    begun = time.monotonic()
    assert caller.claim(seq=1, wait_ms=20_000) is None
    assert time.monotonic() - begun < 15  # not the 20 s


# ------------------------------------------------------------------ workers as people see them


def test_workers_are_seen_as_they_are(live: Live, study: str) -> None:
    idle, busy, gone = Caller(live), Caller(live), Caller(live)
    busy.claim()
    live.workers.goodbye(gone.known.worker_id)
    seen = {view.name: view for view in live.client.workers()}
    states = [seen[caller.name].state for caller in (idle, busy, gone)]
    assert states == ["idle", "busy", "gone"]
    assert (seen[busy.name].study, seen[busy.name].trial) == (study, 0)
    assert f'lmtune_trials{{study="{study}",state="RUNNING"}} 1' in live.api.get("/metrics").text


def test_a_worker_needs_the_token(live: Live) -> None:
    stranger = WorkerClient(live.url, "lmt_wrong")
    with pytest.raises(Unauthorized):
        stranger.register(Caller(live).registration())
    stranger.http.close()
