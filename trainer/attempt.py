"""One granted attempt: the child trains, this side speaks to the server.

Reports go up in order, one at a time, while training goes on; a checkpoint goes up after the
report before it, and an older one that waits is passed over. What the server wants of the trial
comes back with every answer and goes to the child. Once the fence refuses us, the trial is dropped.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from studies.client import Attempt
from studies.errors import (
    BlobMissing,
    Cancelled,
    Conflict,
    Finished,
    LmtuneError,
    NotFound,
    Paused,
    Stopped,
    Superseded,
)
from studies.trial import Decision, Outcome
from studies.wire import CheckpointBody, FinishBody, ReportItem
from trainer.patience import Patience
from trainer.warm import Child

logger = logging.getLogger(__name__)
ResultT = TypeVar("ResultT")
FENCED: Final = (Superseded, Finished, Stopped, Cancelled, Paused, NotFound)
_LOOK: Final = 0.2  # how often the queue is left to look at the flags [s]
_ENDINGS: Final = {
    Decision.STOP: Outcome.PRUNED,
    Decision.CANCEL: Outcome.PRUNED,
    Decision.PAUSE: Outcome.PAUSED,
}


class Dropped(Exception):
    """The trial is no longer ours."""


class Heart:
    """Renews the lease from a thread of its own, for as long as the attempt lasts."""

    def __init__(self, calls: Attempt, run: AttemptRun) -> None:
        self._calls, self._run = calls, run
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heart", daemon=True)

    def __enter__(self) -> Heart:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _beat(self) -> None:
        pause = self._calls.grant.heartbeat_ms / 1_000
        while not self._stopped.wait(pause * random.uniform(0.8, 1.2)):  # noqa: S311
            try:
                self._run.obey(self._calls.heartbeat(self._run.step).decision)
            except FENCED as error:
                self._run.drop(error)
            except LmtuneError as error:
                logger.debug("a heartbeat failed: %s", error)  # the next one follows


class AttemptRun:
    """The state of one attempt on this side."""

    def __init__(self, calls: Attempt, child: Child, patience: Patience, code_hash: str) -> None:
        self._calls, self._child, self._patience = calls, child, patience
        self._code_hash = code_hash
        self.step = calls.grant.resume.step if calls.grant.resume else 0
        self._reported = self.step  # last step whose report is stored
        self._asked: Outcome | None = None
        self._dropped: LmtuneError | None = None
        self._lock = threading.Lock()
        self._inbox: deque[dict[str, Any]] = deque()
        self._best: dict[str, Any] | None = None  # best checkpoint's message, its file kept

    def obey(self, decision: Decision) -> None:
        """Passes a decision on to the child, once."""
        if ending := _ENDINGS.get(decision):
            self.ask(ending)

    def ask(self, ending: Outcome) -> None:
        """Tells the child to end at its next step; safe from any thread, the first ask counts."""
        with self._lock:
            if self._asked is None:
                self._asked = ending
                self._child.send("end", outcome=ending)

    def drop(self, error: LmtuneError) -> None:
        """Gives the trial up: it is no longer ours."""
        self._dropped = self._dropped or error
        self.ask(Outcome.PRUNED)

    def train(self, recipe: dict[str, Any], text: Path | None, folder: Path) -> None:
        """Trains the granted trial to its end and settles it with the server.

        Raises:
            GaveUp: the server has been silent for too long.
        """
        try:
            with Heart(self._calls, self):
                start = self._fetch(folder)
                order = {"recipe": recipe, "text": text and str(text), "folder": str(folder)}
                self._child.send("train", start=start, **order)
                end = self._follow(order)
                self._finish(end)
        except Dropped:
            logger.info("the trial is no longer ours: %s", self._dropped)
            self._child.settle_down()

    def _fetch(self, folder: Path) -> tuple[str, str] | None:
        """Returns the downloaded checkpoint (path, sha256) to resume from; None: from the start."""
        resume = self._calls.grant.resume
        if resume is None:
            return None
        target = folder / "start.safetensors"
        try:
            self._patience.call(lambda: self._calls.download(resume.sha256, target))
        except NotFound:
            self._resume_from_start("its blob is gone")
            return None
        return str(target), resume.sha256

    def _follow(self, order: dict[str, Any]) -> dict[str, Any]:
        """Handles what the child says until the run is over; returns its last message."""
        while True:
            message = self._next()
            kind = message["kind"]
            if kind == "report":
                self._report(message)
            elif kind == "checkpoint":
                self._keep(message)
            elif kind == "step":
                self.step = max(self.step, message["step"])
            elif kind == "started":
                self._started(message)
            elif kind == "unusable":
                self._resume_from_start(message["reason"])
                self._child.send("train", start=None, **order)
            elif kind in ("result", "error", "died"):
                return message

    def _next(self) -> dict[str, Any]:
        """Returns the child's next message; raises Dropped once the trial is not ours."""
        while True:
            if self._dropped is not None:
                raise Dropped
            self._drain()
            if self._inbox:
                return self._inbox.popleft()
            if (message := self._child.receive(_LOOK)) is not None:
                self._inbox.append(message)

    def _drain(self) -> None:
        while (message := self._child.receive(0)) is not None:
            self._inbox.append(message)

    def _call(self, what: Callable[[], ResultT]) -> ResultT:
        """Returns the answer of a fenced call; raises Dropped where the fence refuses."""
        try:
            return self._patience.call(what)
        except FENCED as error:
            self.drop(error)
            raise Dropped from error

    def _started(self, message: dict[str, Any]) -> None:
        self.step = message["step"]
        environment = message["environment"]
        answer = self._call(lambda: self._calls.heartbeat(self.step, environment))
        self.obey(answer.decision)

    def _report(self, message: dict[str, Any]) -> None:
        item = ReportItem.model_validate(message["item"])
        self.step = max(self.step, item.step)
        answer = self._call(lambda: self._calls.report([item]))
        self._reported = item.step
        self.obey(answer.decision)

    def _keep(self, message: dict[str, Any]) -> None:
        """Uploads a checkpoint unless a newer one waits; the best one's file is kept."""
        self._drain()
        if any(later["kind"] == "checkpoint" for later in self._inbox):
            self._discard(message)
        else:
            self._upload(message)
        if message["best"]:
            previous, self._best = self._best, message
            if previous is not None:
                Path(previous["path"]).unlink(missing_ok=True)
        else:
            self._discard(message)

    def _discard(self, message: dict[str, Any]) -> None:
        if not message["best"]:
            Path(message["path"]).unlink(missing_ok=True)

    def _upload(self, message: dict[str, Any]) -> None:
        """Uploads the file, then points at it; a full or failing server does not end the trial."""
        path, sha256 = Path(message["path"]), message["sha256"]
        body = CheckpointBody(
            step=message["step"],
            sha256=sha256,
            bytes=path.stat().st_size,
            code_hash=self._code_hash,
            last_report_step=min(self._reported, message["step"]),
        )

        def upload_and_point() -> Decision:
            self._calls.upload(sha256, path)
            return self._calls.checkpoint(body).decision

        try:
            self.obey(self._call(upload_and_point))
        except BlobMissing:
            self.obey(self._call(upload_and_point))
        except LmtuneError as error:
            logger.warning("checkpoint of step %s was not kept: %s", message["step"], error)

    def _resume_from_start(self, reason: str) -> None:
        logger.warning("cannot resume (%s); starting from step 0", reason)
        self._call(lambda: self._calls.resume(None))
        self.step = self._reported = 0

    def _finish(self, end: dict[str, Any]) -> None:
        """Tells the server how the attempt ended."""
        body = self._finish_body(end)
        if end.get("trace"):
            logger.error("the trial failed:\n%s", end["trace"])
            self._log(end["trace"])
        best = self._best
        if best is not None and body.outcome is Outcome.OK and best["step"] == body.final_step:
            self._upload(best)  # the newest pointer is the one that is kept
        try:
            answer = self._call(lambda: self._calls.finish(body))
        except Conflict as error:
            logger.warning("the end was refused: %s", error)
            return
        logger.info(
            "attempt ended: %s at step %s -> %s", body.outcome, body.final_step, answer.state
        )

    def _finish_body(self, end: dict[str, Any]) -> FinishBody:
        if end["kind"] == "result":
            outcome, reason = Outcome(end["outcome"]), end["reason"]
            return FinishBody(outcome=outcome, final_step=end["final_step"], reason=reason)
        return FinishBody(outcome=Outcome.ERROR, final_step=self.step, reason=end["reason"])

    def _log(self, text: str) -> None:
        try:
            self._calls.log(text)
        except LmtuneError as error:
            logger.debug("the log was not stored: %s", error)
