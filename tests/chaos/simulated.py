"""One attempt of a simulated worker: trains, reports, checkpoints, resumes and finishes.

As the real one (trainer/attempt.py): training goes on while the server is silent, and what it has
to say is kept in order; at most one write is unanswered, heartbeats apart; what the fence refuses
ends the attempt.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from tests.chaos.model import Run
from tests.chaos.net import Unreachable

FENCED: Final = {"superseded", "finished", "stopped", "cancelled", "paused", "not_found"}
ENDINGS: Final = {"stop": "pruned", "cancel": "pruned", "pause": "paused"}
BATCH: Final = 5  # reports sent at once, at most
FIRST_WAIT: Final = 0.25  # between two tries of a call, before jitter, as the real worker's [s]
LONGEST_WAIT: Final = 2.0  # doubled at each try up to this: a lease [s]


class Dropped(Exception):
    """The trial is no longer ours."""


@dataclass(frozen=True)
class Item:
    """What is to be said: a report, or a checkpoint of the state at its step."""

    step: int
    value: float
    blob: bytes | None = None


Send = Callable[..., Awaitable[tuple[int, Any]]]


class Attempt:
    """A granted trial, from its first step to its finish."""

    def __init__(self, send: Send, grant: dict[str, Any], token: str, code_hash: str) -> None:
        """`send(op, method, path, body, trial=, attempt=, lease=)` makes and records a call."""
        self._send, self.grant, self._token, self._code_hash = send, grant, token, code_hash
        self._run = Run(grant["recipe"])
        self._queue: list[Item] = []
        self._states: dict[int, Item] = {}  # what may still be checkpointed
        self._acked = self._kept = 0  # last step reported, last step checkpointed
        self._news = asyncio.Event()
        self._trained = False
        self.ending: str | None = None
        self.dropped = False

    def ask(self, outcome: str) -> None:
        """Ends the training; the first ask counts."""
        self.ending = self.ending or outcome
        self._news.set()

    async def live(self, pace: float, rng: random.Random) -> None:
        """Lives through the attempt; returns when it is over or no longer ours.

        Args:
            pace: mean time of a step [s].
            rng: for times only.
        """
        heart = asyncio.create_task(self._beat(rng))
        try:
            await self._begin()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._train(pace, rng))
                group.create_task(self._say_all())
            await self._finish()
        except* Dropped:
            self.dropped = True
        finally:
            heart.cancel()

    async def _begin(self) -> None:
        """Loads the checkpoint; where its hash is wrong or it is gone, starts from step 0."""
        resume = self.grant["resume"]
        if resume is None:
            return
        status, blob = await self._until("download", "GET", f"/blobs/{resume['sha256']}")
        if status == 200 and hashlib.sha256(blob).hexdigest() == resume["sha256"]:
            self._run.load(blob)
            self._acked = self._kept = self._run.step
        else:
            await self._fenced("resume", {"step": None})

    async def _train(self, pace: float, rng: random.Random) -> None:
        run, first = self._run, self.grant["attempt"] == 1
        while not (run.over or self.ending or self.dropped):
            await asyncio.sleep(rng.uniform(0.2, 1.8) * pace)
            if run.step >= run.odd_step - 1:
                await self._misbehave(run.behaviour, first)
            run.advance()
            if run.evaluates:
                item = Item(run.step, run.loss(), run.save())
                self._states[run.step] = item
                self._queue.append(Item(run.step, item.value))
                if (run.step // run.every) % 2 == 0 and not run.over:
                    self._queue.append(item)
                self._news.set()
        self._trained = True
        self._news.set()

    async def _misbehave(self, behaviour: str, first: bool) -> None:
        if behaviour == "abort":
            os.kill(os.getpid(), signal.SIGKILL)
        elif behaviour == "hang" and first:
            while not (self.ending or self.dropped):
                await asyncio.sleep(0.1)
        elif behaviour == "error" or (behaviour == "oom" and first):
            self.ask(behaviour)

    async def _say_all(self) -> None:
        """Says what is in the queue, in order, until training is over and all is said."""
        while not self._trained or (self._queue and self.ending is None):
            self._news.clear()
            if not self._queue or self.ending is not None:
                await self._news.wait()
            elif self._queue[0].blob is not None:
                await self._keep(self._queue.pop(0))
            else:
                await self._report()

    async def _report(self) -> None:
        def body() -> dict[str, Any]:
            reports = []
            for item in self._queue[:BATCH]:  # a retry may take more with it
                if item.blob is not None:
                    break
                reports.append(item)
            return {"items": [_report_item(item) for item in reports]}

        answer = await self._fenced("report", body)
        self._acked = answer["accepted_through"]
        while self._queue and self._queue[0].blob is None and self._queue[0].step <= self._acked:
            self._queue.pop(0)
        self._obey(answer["decision"])

    async def _keep(self, item: Item) -> None:
        """Uploads a checkpoint, then points at it; again where the blob was collected."""
        assert item.blob is not None
        sha256 = hashlib.sha256(item.blob).hexdigest()
        pointer = {
            "step": item.step,
            "sha256": sha256,
            "bytes": len(item.blob),
            "code_hash": self._code_hash,
            "last_report_step": item.step,
        }
        for _ in range(5):
            status, _ = await self._until("upload", "PUT", f"/blobs/{sha256}", item.blob)
            if status == 507:
                return
            answer = await self._fenced("checkpoint", pointer, "blob_missing")
            if answer.get("code") != "blob_missing":
                self._kept = item.step
                self._obey(answer["decision"])
                return

    async def _finish(self) -> None:
        """Says how the attempt ended, with the checkpoint that this end needs before it."""
        outcome, step, reason = self.ending, self._acked, None
        if outcome is None:
            ended = self._run.ended
            outcome, step = ended.outcome, ended.final_step
        wanted = {"ok": step, "paused": self._acked, "preempted": self._acked}.get(outcome, 0)
        if wanted != self._kept and wanted in self._states:
            await self._keep(self._states[wanted])
        if outcome in ("error", "oom"):
            reason = "as this configuration always does"
        await self._fenced("finish", {"outcome": outcome, "final_step": step, "reason": reason})

    async def _beat(self, rng: random.Random) -> None:
        pause = self.grant["heartbeat_ms"] / 1_000
        while not self.dropped:
            await asyncio.sleep(pause * rng.uniform(0.8, 1.2))
            try:
                status, answer = await self._once("heartbeat", {"step": self._run.step})
            except Unreachable:
                continue
            if status == 200:
                self._obey(answer["decision"])
            elif answer.get("code") in FENCED:
                self.dropped = True
                self._news.set()

    def _obey(self, decision: str) -> None:
        if ending := ENDINGS.get(decision):
            self.ask(ending)

    async def _fenced(self, op: str, body: Any, *also: str) -> dict[str, Any]:
        """Returns the answer of a write; raises Dropped where the fence refuses it."""
        status, answer = await self._until(op, "POST", self._path(op), body)
        if status == 200 or answer.get("code") in also:
            return answer
        raise Dropped

    async def _until(self, op: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Returns the first answer that says yes or no, however often it has to be asked for."""
        wait = FIRST_WAIT
        while not self.dropped:
            try:
                said = body() if callable(body) else body
                status, answer = await self._call(op, method, path, said)
            except Unreachable:
                status, answer = 503, None
            if status not in (429, 502, 503, 504):
                return status, answer
            await asyncio.sleep(random.uniform(0, wait))
            wait = min(2 * wait, LONGEST_WAIT)
        raise Dropped

    async def _once(self, op: str, body: Any) -> tuple[int, Any]:
        return await self._call(op, "POST", self._path(op), body)

    async def _call(self, op: str, method: str, path: str, body: Any) -> tuple[int, Any]:
        key = {"trial": self.grant["trial_id"], "attempt": self.grant["attempt"]}
        return await self._send(op, method, path, body, lease=self._token, **key)

    def _path(self, op: str) -> str:
        last = {"report": "reports", "checkpoint": "checkpoints"}.get(op, op)
        return f"/trials/{self.grant['trial_id']}/attempts/{self.grant['attempt']}/{last}"


def _report_item(item: Item) -> dict[str, Any]:
    text = {"nan": "NaN", "inf": "Infinity"}.get(repr(item.value), item.value)
    return {"step": item.step, "metrics": {"validation_loss": text}, "tokens": item.step * 64}
