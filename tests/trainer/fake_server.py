"""A server of a few trials behind httpx's transport: it keeps the worker protocol's rules."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass, field

import httpx

from studies import wire
from studies.client import WorkerClient
from studies.recipe import Recipe

LEASE_MS = 2_000


@dataclass
class Trial:
    """One trial and what the worker did with it, attempt after attempt."""

    recipe: Recipe
    attempt: int = 0
    lease_token: str = ""
    reports: dict[int, wire.ReportItem] = field(default_factory=dict)
    checkpoints: list[wire.CheckpointBody] = field(default_factory=list)
    finishes: list[wire.FinishBody] = field(default_factory=list)
    environment: dict | None = None
    resumed: list[int | None] = field(default_factory=list)
    log: str = ""
    batches: list[int] = field(default_factory=list)  # reports in each call
    steps: list[int] = field(default_factory=list)  # told by heartbeats
    decide: dict[int, str] = field(default_factory=dict)  # step of a report -> its decision
    desired: str = "continue"  # what heartbeats answer
    fence: str | None = None  # the 409 that every write is answered with
    open: bool = False  # an attempt holds it


class FakeServer:
    """Speaks the worker protocol; `down` refuses connections, `refuse` is the next problem."""

    def __init__(self) -> None:
        self.trials: list[Trial] = []
        self.blobs: dict[str, bytes] = {}
        self.texts: dict[str, bytes] = {}
        self.lose_blobs = 0  # blobs to forget between upload and pointer
        self.refusals: dict[str, tuple[int, str]] = {}  # verb -> problem, once
        self.down = False
        self.order: list[str] = []  # verbs in the order in which they were answered
        self.registered: list[wire.RegisterBody] = []
        self.gone = False
        self.claims = self.seq = 0  # how many came; the newest number
        self.forget = 0  # claims that are answered as those of a worker nobody knows
        self.retry_after = 0  # said when there is nothing to do [s]
        self.idle = threading.Event()  # a claim found nothing
        self._lock = threading.RLock()

    def add(self, recipe: Recipe) -> Trial:
        """Adds a trial that waits to be claimed."""
        self.trials.append(Trial(recipe))
        return self.trials[-1]

    def client(self) -> WorkerClient:
        """A client whose requests end here."""
        return WorkerClient("http://fake", "token", transport=httpx.MockTransport(self._answer))

    def grant(self, trial: Trial, token: str = "f" * 32) -> wire.Grant:
        """Grants the trial, as a claim does."""
        trial.attempt, trial.lease_token, trial.open = trial.attempt + 1, token, True
        newest, older = [*reversed(trial.checkpoints), None, None][:2]
        visible = newest.step if newest else 0
        trial.reports = {s: item for s, item in trial.reports.items() if s <= visible}
        return wire.Grant(
            trial_id=self.trials.index(trial),
            study="s",
            number=self.trials.index(trial),
            attempt=trial.attempt,
            lease_ms=LEASE_MS,
            heartbeat_ms=LEASE_MS // 20,
            recipe=trial.recipe,
            resume=newest and wire.Resume(step=newest.step, sha256=newest.sha256, bytes=1),
            older=older and wire.Resume(step=older.step, sha256=older.sha256, bytes=1),
            max_step=trial.recipe.train.steps,
        )

    # ------------------------------------------------------------ answering

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if self.down:
            raise httpx.ConnectError("refused", request=request)
        path, body = request.url.path.removeprefix("/api/v1"), request.read()
        if match := re.fullmatch(r"/trials/(\d+)/attempts/(\d+)/(\w+)", path):
            trial = self.trials[int(match[1])]
            with self._lock:
                return self._write(trial, int(match[2]), match[3], request, body)
        if path.startswith(("/blobs/", "/data/")):
            return self._content(request.method, path, body)
        if path.endswith("/claim"):
            return self._claim(wire.ClaimBody.model_validate_json(body))
        if request.method == "DELETE":
            self.gone = True
            return httpx.Response(204)
        return self._register(wire.RegisterBody.model_validate_json(body))

    def _register(self, body: wire.RegisterBody) -> httpx.Response:
        if refusal := self.refusals.pop("register", None):
            return _problem(*refusal)
        if body.name not in {known.name for known in self.registered}:
            self.seq = 0
        self.registered.append(body)
        return _json(wire.Registered(worker_id=1, lease_ms=LEASE_MS, heartbeat_ms=LEASE_MS // 20))

    def _claim(self, body: wire.ClaimBody) -> httpx.Response:
        if refusal := self.refusals.pop("claim", None):
            return _problem(*refusal)
        if self.forget:
            self.forget -= 1
            return _problem(404, "not_found")
        if body.seq < self.seq:
            return _problem(409, "stale_claim")
        self.seq, self.claims = body.seq, self.claims + 1
        for trial in self.trials:
            if not trial.open and not trial.finishes:
                return _json(self.grant(trial, body.lease_token))
        self.idle.set()
        time.sleep(min(body.wait_ms, 200) / 1_000)
        return httpx.Response(204, headers={"Retry-After": str(self.retry_after)})

    def _content(self, method: str, path: str, body: bytes) -> httpx.Response:
        sha256 = path.rsplit("/", 1)[1]
        store = self.blobs if path.startswith("/blobs/") else self.texts
        if method == "PUT":
            assert hashlib.sha256(body).hexdigest() == sha256
            store[sha256] = body
            return httpx.Response(204)
        if sha256 not in store:
            return _problem(404, "not_found")
        return httpx.Response(200, content=store[sha256])

    def _write(
        self, trial: Trial, attempt: int, verb: str, request: httpx.Request, body: bytes
    ) -> httpx.Response:
        if trial.fence or attempt != trial.attempt or not trial.open:
            return _problem(409, trial.fence or "superseded")
        assert request.headers[wire.LEASE_HEADER] == trial.lease_token
        if refusal := self.refusals.pop(verb, None):
            return _problem(*refusal)
        self.order.append(verb)
        return getattr(self, f"_{verb}")(trial, body)

    def _heartbeat(self, trial: Trial, body: bytes) -> httpx.Response:
        said = wire.HeartbeatBody.model_validate_json(body)
        trial.steps.append(said.step)
        trial.environment = said.environment or trial.environment
        return _json(wire.DecisionView(decision=trial.desired))

    def _reports(self, trial: Trial, body: bytes) -> httpx.Response:
        items = wire.ReportBody.model_validate_json(body).items
        trial.batches.append(len(items))
        for item in items:
            assert item.step > max(trial.reports, default=0), "steps rise"
            trial.reports[item.step] = item
            decision = trial.decide.get(item.step, trial.desired)
            if decision != "continue":
                break
        return _json(wire.ReportAnswer(accepted_through=item.step, decision=decision))

    def _checkpoints(self, trial: Trial, body: bytes) -> httpx.Response:
        pointer = wire.CheckpointBody.model_validate_json(body)
        if self.lose_blobs:
            self.lose_blobs -= 1
            del self.blobs[pointer.sha256]
        if pointer.sha256 not in self.blobs:
            return _problem(409, "blob_missing")
        assert pointer.last_report_step in {0, *trial.reports}, "reported before"
        assert len(self.blobs[pointer.sha256]) == pointer.bytes
        trial.checkpoints.append(pointer)
        return _json(wire.DecisionView(decision=trial.desired))

    def _resume(self, trial: Trial, body: bytes) -> httpx.Response:
        step = wire.ResumeBody.model_validate_json(body).step
        trial.resumed.append(step)
        trial.checkpoints = [c for c in trial.checkpoints if c.step <= (step or 0)]
        trial.reports = {s: item for s, item in trial.reports.items() if s <= (step or 0)}
        return _json(wire.DecisionView(decision="continue"))

    def _log(self, trial: Trial, body: bytes) -> httpx.Response:
        trial.log += body.decode()
        return httpx.Response(204)

    def _finish(self, trial: Trial, body: bytes) -> httpx.Response:
        trial.finishes.append(wire.FinishBody.model_validate_json(body))
        trial.open = False
        return _json(wire.FinishAnswer(state="COMPLETE"))


def _json(body: wire.View) -> httpx.Response:
    return httpx.Response(200, json=body.model_dump(mode="json", by_alias=True))


def _problem(status: int, code: str) -> httpx.Response:
    content = json.dumps({"code": code, "detail": f"the server says {code}"})
    return httpx.Response(status, content=content if code else "a proxy says no")
