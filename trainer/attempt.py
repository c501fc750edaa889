"""One granted attempt: the child trains, this side speaks to the server.

Reports go up in order, one at a time, while training goes on; a checkpoint goes up after the
report before it. What the server wants of the trial comes back with every answer and goes to the
child. Once the fence refuses us, the trial is dropped.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from studies.client import Attempt
from studies.errors import (
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
from studies.wire import FinishBody, ReportItem
from trainer.inbox import Message
from trainer.patience import Patience
from trainer.uploads import Uploads
from trainer.warm import Child

logger = logging.getLogger(__name__)
ResultT = TypeVar("ResultT")
FENCED: Final = (Superseded, Finished, Stopped, Cancelled, Paused, NotFound)
_LOOK: Final = 0.2  # how often a waiting attempt looks whether it was dropped [s]
_JITTER: Final = (0.8, 1.2)  # of the time between heartbeats, see protocol
_ENDINGS: Final = {
    Decision.STOP: Outcome.PRUNED,
    Decision.CANCEL: Outcome.PRUNED,
    Decision.PAUSE: Outcome.PAUSED,
}


class Dropped(Exception):
    """The trial is no longer ours."""


class AttemptRun:
    """The state of one attempt on this side; `ask`, `obey` and `drop` may come from any thread."""

    def __init__(self, calls: Attempt, child: Child, patience: Patience, code_hash: str) -> None:
        self._calls, self._child, self._patience = calls, child, patience
        self._uploads = Uploads(calls, self._call, code_hash)
        self.step = calls.grant.resume.step if calls.grant.resume else 0
        self._reported = 0  # last step whose report this attempt has stored
        self._asked: Outcome | None = None
        self._training = False  # whether the child has been told of the trial and is not done
        self._job: dict[str, Any] = {}
        self._dropped: LmtuneError | None = None
        self._lock = threading.Lock()

    def obey(self, decision: Decision) -> None:
        """Passes a decision of the server's on to the child."""
        if ending := _ENDINGS.get(decision):
            self.ask(ending)

    def ask(self, ending: Outcome) -> None:
        """Has the child end the trial at its next step; the first ask counts."""
        with self._lock:
            if self._asked is None:
                self._asked = ending
                if self._training:
                    self._child.send("end", outcome=ending)

    def drop(self, error: LmtuneError) -> None:
        """Gives the trial up: it is no longer ours."""
        self._dropped = self._dropped or error
        self.ask(Outcome.PRUNED)

    def train(self, fetch_text: Callable[[str], Path], folder: Path) -> None:
        """Trains the granted trial to its end and settles it with the server.

        Args:
            fetch_text: gives the file of an uploaded text by its sha256.
            folder: for checkpoints; empty, and removed by the caller.

        Raises:
            GaveUp: the server has been silent for too long.
        """
        with Heart(self._calls, self):
            try:
                self._order(fetch_text, folder)
                self._finish(self._follow())
            except Dropped:
                logger.info("the trial is no longer ours: %s", self._dropped)
                self._abandon()
            except (LmtuneError, OSError) as error:
                logger.exception("this attempt failed on the supervisor's side")
                self._abandon()
                with contextlib.suppress(LmtuneError):
                    self._calls.finish(self._failed(str(error)))

    def _order(self, fetch_text: Callable[[str], Path], folder: Path) -> None:
        """Has the child train, from the checkpoint where there is one."""
        recipe = self._calls.grant.recipe
        text = fetch_text(recipe.data.sha256) if recipe.data.sha256 else None
        self._job = {
            "recipe": recipe.model_dump(mode="json", by_alias=True),
            "text": str(text) if text else None,
            "folder": str(folder),
        }
        self._start(self._fetch(folder))

    def _start(self, checkpoint: tuple[str, str] | None) -> None:
        with self._lock:
            self._child.send("train", start=checkpoint, **self._job)
            self._training = True
            if self._asked is not None:  # before the child could hear it
                self._child.send("end", outcome=self._asked)

    def _fetch(self, folder: Path) -> tuple[str, str] | None:
        """Returns the downloaded checkpoint (path, sha256) to go on from; None: from step 0."""
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

    def _follow(self) -> Message:
        """Handles what the child says until the run is over; returns its last message."""
        handlers: dict[str, Callable[[Message], None]] = {
            "started": self._started,
            "step": self._stepped,
            "report": self._report,
            "checkpoint": self._keep,
            "unusable": self._start_anew,
        }
        while (handle := handlers.get((message := self._next())["kind"])) is not None:
            handle(message)
        self._training = False
        return message  # result, error or died

    def _next(self) -> Message:
        """Returns the child's next message; raises Dropped once the trial is not ours."""
        while self._dropped is None:
            if (message := self._child.receive(_LOOK)) is not None:
                return message
        raise Dropped

    def _call(self, what: Callable[[], ResultT]) -> ResultT:
        """Returns the answer of a fenced call; raises Dropped where the fence refuses."""
        try:
            return self._patience.call(what)
        except FENCED as error:
            self.drop(error)
            raise Dropped from error

    def _started(self, message: Message) -> None:
        self.step = message["step"]
        environment = message["environment"]
        self.obey(self._call(lambda: self._calls.heartbeat(self.step, environment)).decision)

    def _stepped(self, message: Message) -> None:
        self.step = max(self.step, message["step"])

    def _report(self, message: Message) -> None:
        item = ReportItem.model_validate(message["item"])
        self.step = max(self.step, item.step)
        answer = self._call(lambda: self._calls.report([item]))
        self._reported = item.step
        self.obey(answer.decision)

    def _keep(self, message: Message) -> None:
        self.obey(self._uploads.take(message, self._reported))

    def _start_anew(self, message: Message) -> None:
        self._resume_from_start(message["reason"])
        self._start(None)

    def _resume_from_start(self, reason: str) -> None:
        logger.warning("cannot resume (%s); starting from step 0", reason)
        self._call(lambda: self._calls.resume(None))
        self.step = self._reported = 0

    def _finish(self, end: Message) -> None:
        """Tells the server how the attempt ended."""
        body = self._finish_body(end)
        if body.outcome is Outcome.OK:
            self._uploads.close(body.final_step)
        try:
            answer = self._call(lambda: self._calls.finish(body))
        except Conflict as error:
            logger.warning("the end was refused: %s", error)
            return
        logger.info(
            "attempt ended: %s at step %s -> %s", body.outcome, body.final_step, answer.state
        )

    def _finish_body(self, end: Message) -> FinishBody:
        if end["kind"] == "result":
            outcome, final_step = Outcome(end["outcome"]), end["final_step"] or self.step
            return FinishBody(outcome=outcome, final_step=final_step, reason=end["reason"])
        if trace := end.get("trace"):
            logger.error("the trial failed:\n%s", trace)
            with contextlib.suppress(LmtuneError):
                self._calls.log(trace)
        return self._failed(end["reason"])

    def _failed(self, reason: str) -> FinishBody:
        return FinishBody(outcome=Outcome.ERROR, final_step=self.step, reason=reason[:2_000])

    def _abandon(self) -> None:
        """Returns when the child trains no more."""
        self.ask(Outcome.PRUNED)
        if self._training:
            self._child.settle_down()


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
        while not self._stopped.wait(pause * random.uniform(*_JITTER)):  # noqa: S311
            try:
                self._run.obey(self._calls.heartbeat(self._run.step).decision)
            except FENCED as error:
                self._run.drop(error)
            except LmtuneError as error:
                logger.debug("a heartbeat failed: %s", error)  # the next one follows
