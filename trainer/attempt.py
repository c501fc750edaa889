"""One granted attempt: the child trains, this side speaks to the server.

Reports go up in order, one call at a time, while training goes on; a checkpoint goes up after the
reports before it. What the server wants of the trial comes back with every answer and goes to the
child. Once the fence refuses us, the trial is dropped. While the server is away all of it waits in
the inbox, and the child trains on.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from studies.client import Attempt
from studies.errors import Conflict, LmtuneError, NotFound
from studies.trial import Decision, Outcome
from studies.wire import FinishBody, ReportItem
from trainer.diary import Diary
from trainer.heart import FENCED, Heart
from trainer.inbox import Message
from trainer.patience import FAILING_LEASES, Patience
from trainer.scratch import Scratch
from trainer.uploads import Uploads
from trainer.warm import Child

logger = logging.getLogger(__name__)
ResultT = TypeVar("ResultT")
_ENDINGS: Final = {
    Decision.STOP: Outcome.PRUNED,
    Decision.CANCEL: Outcome.PRUNED,
    Decision.PAUSE: Outcome.PAUSED,
}


class Dropped(Exception):
    """The trial is no longer ours."""


class AttemptRun:
    """The state of one attempt on this side; the public methods but `train` are for any thread."""

    def __init__(self, calls: Attempt, child: Child, patience: Patience, code_hash: str) -> None:
        self._calls, self._child, self._patience = calls, child, patience
        self._uploads = Uploads(calls, self._call, code_hash)
        self._diary = Diary(calls)
        self._starts = [start for start in (calls.grant.resume, calls.grant.older) if start]
        self._decided = False  # a report's answer has ended the trial: no more are sent
        self._asked: Outcome | None = None
        self._training = False  # whether the child has been told of the trial and is not done
        self._job: dict[str, Any] = {}
        self._dropped: LmtuneError | None = None
        self._lock = threading.Lock()

    @property
    def step(self) -> int:
        """The last step that the child told."""
        return self._child.step

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
        self._child.nudge()
        self.heard()

    def heard(self) -> None:
        """Has a call that waits for the server try again now."""
        self._patience.retry()

    def train(self, fetch_text: Callable[[str], Path], scratch: Scratch) -> None:
        """Trains the granted trial to its end and settles it with the server.

        Args:
            fetch_text: gives the file of an uploaded text by its sha256.
            scratch: for checkpoints, and reports that wait.

        Raises:
            GaveUp: the server has been silent for too long.
        """
        with Heart(self._calls, self), self._diary:
            try:
                with scratch.attempt() as folder, self._quiet_child():
                    self._order(fetch_text, folder)
                    self._finish(self._follow())
            except Dropped:
                logger.info("the trial is no longer ours: %s", self._dropped)
            except (LmtuneError, OSError) as error:
                logger.exception("this attempt failed on the supervisor's side")
                self._diary.send()
                with contextlib.suppress(LmtuneError):
                    self._calls.finish(self._failed(str(error)))

    def _order(self, fetch_text: Callable[[str], Path], folder: Path) -> None:
        """Has the child train, from a checkpoint where there is one."""
        recipe = self._calls.grant.recipe
        self._child.begin(folder, self._starts[0].step if self._starts else 0)
        text = fetch_text(recipe.data.sha256) if recipe.data.sha256 else None
        self._job = {
            "recipe": recipe.model_dump(mode="json", by_alias=True),
            "text": str(text) if text else None,
            "folder": str(folder),
        }
        self._start()

    def _start(self) -> None:
        """Has the child train from the newest checkpoint that can be had, or anew."""
        checkpoint = None
        while self._starts and (checkpoint := self._fetch()) is None:
            self._pass_over("its blob is gone")
        with self._lock:
            self._child.send("train", start=checkpoint, **self._job)
            self._training = True
            if self._asked is not None:  # before the child could hear it
                self._child.send("end", outcome=self._asked)

    def _fetch(self) -> dict[str, Any] | None:
        """Returns the first checkpoint, downloaded, or None where the server has it no more."""
        start = self._starts[0]
        target = Path(self._job["folder"], f"start-{start.step}.safetensors")
        try:
            self._patience.call(lambda: self._calls.download(start.sha256, target))
        except NotFound:
            return None
        return {"path": str(target), "sha256": start.sha256, "step": start.step}

    def _pass_over(self, reason: str) -> None:
        """Gives up the first checkpoint; the attempt goes on from the one before it, or anew."""
        bad = self._starts.pop(0)
        step = self._starts[0].step if self._starts else None
        logger.warning(
            "cannot resume from step %s (%s); going on from step %s", bad.step, reason, step or 0
        )
        self.obey(self._call(lambda: self._calls.resume(step)).decision)

    def _follow(self) -> Message:
        """Handles what the child says until the run is over; returns its last message."""
        handlers: dict[str, Callable[[Message], None]] = {
            "started": self._started,
            "reports": self._report,
            "checkpoint": self._keep,
            "unusable": self._unusable,
        }
        while (handle := handlers.get((message := self._next())["kind"])) is not None:
            handle(message)
            self._diary.send_at_times()
        self._training = False
        return message  # result, error or died

    def _next(self) -> Message:
        """Returns the child's next message; raises Dropped once the trial is not ours."""
        while True:
            message = self._child.receive()
            if self._dropped is not None:
                raise Dropped
            if message is not None and message["kind"] != "nudge":
                return message

    def _call(self, what: Callable[[], ResultT]) -> ResultT:
        """Returns the answer of a fenced call; raises Dropped where the fence refuses."""
        try:
            return self._patience.call(what, FAILING_LEASES)
        except FENCED as error:
            self.drop(error)
            raise Dropped from error

    def _started(self, message: Message) -> None:
        step, environment = message["step"], message["environment"]
        device, precision = environment["device_name"], environment["precision"]
        logger.info("training on %s in %s, from step %s", device, precision, step)
        self.obey(self._call(lambda: self._calls.heartbeat(step, environment)).decision)

    def _report(self, message: Message) -> None:
        """Sends reports; none after a decision to end, which leaves the rest of a batch out."""
        items = [ReportItem.model_validate(item) for item in message["items"]]
        if not self._decided:
            answer = self._call(lambda: self._calls.report(items))
            self._decided = answer.decision is not Decision.CONTINUE
            self._uploads.reported = answer.accepted_through
            self.obey(answer.decision)
            items = [item for item in items if item.step > answer.accepted_through]
        if items:
            self._uploads.leave_out(items[0].step)
        for item in message["items"]:
            self._diary.write(f"step {item['step']}: {item['metrics']}")

    def _keep(self, message: Message) -> None:
        self.obey(self._uploads.take(message))

    def _unusable(self, message: Message) -> None:
        self._training = False
        self._pass_over(message["reason"])
        self._start()

    def _finish(self, end: Message) -> None:
        """Tells the server how the attempt ended."""
        body = self._finish_body(end)
        if body.outcome is Outcome.OK:
            self._uploads.close(body.final_step)
        self._diary.send()  # the end closes the fence
        try:
            answer = self._call(lambda: self._calls.finish(body))
        except Conflict as error:
            logger.warning("the end was refused: %s", error)
            return
        logger.info(
            "attempt ended: %s at step %s -> %s", body.outcome, body.final_step, answer.state
        )

    def _finish_body(self, end: Message) -> FinishBody:
        if end["kind"] != "result":
            logger.error("the trial failed: %s", end.get("trace", end["reason"]))
            return self._failed(end["reason"], Outcome(end.get("outcome", Outcome.ERROR)))
        first, last = (datetime.fromtimestamp(t, UTC).isoformat() for t in end["trained"])
        logger.info("trained from %s to %s", first, last)
        outcome = Outcome(end["outcome"])
        if outcome is Outcome.OK and self._uploads.left_out:  # it was to end before that
            outcome = self._asked or outcome
        final_step = end["final_step"] or self.step
        return FinishBody(outcome=outcome, final_step=final_step, reason=end["reason"])

    def _failed(self, reason: str, outcome: Outcome = Outcome.ERROR) -> FinishBody:
        return FinishBody(outcome=outcome, final_step=self.step, reason=reason[:2_000])

    @contextlib.contextmanager
    def _quiet_child(self) -> Iterator[None]:
        """Ends when the child trains no more, however the attempt ended."""
        try:
            yield
        finally:
            if self._training:
                self.ask(Outcome.PRUNED)
                self._child.settle_down()
