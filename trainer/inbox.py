"""What the child said and the supervisor has not yet dealt with."""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path
from typing import Any

from studies.wire import MAX_ITEMS
from trainer.spool import Spool

Message = dict[str, Any]


class Inbox:
    """Messages in order, from one thread to another; what waits fills neither memory nor disk.

    Reports wait in a spool, and those that wait together come out as one message, `reports`. At
    most two checkpoints wait: one that a newer overtakes is dropped and its file removed; the best
    so far is dropped for a better one only. The step is told at once, never queued.
    """

    def __init__(self) -> None:
        self.step = 0  # the last that the child told
        self._messages: deque[Message] = deque()
        self._spool: Spool | None = None
        self._changed = threading.Condition()

    def begin(self, spool: Spool, step: int) -> None:
        """Begins an attempt, from a step; its reports wait in the spool."""
        with self._changed:
            self._spool, self.step = spool, step

    def put(self, message: Message) -> None:
        """Adds a message."""
        with self._changed:
            self.step = message.get("step", self.step)
            if message["kind"] == "step":
                return
            if message["kind"] == "checkpoint":
                self._drop_overtaken(message)
            if message["kind"] == "report":
                self._add_report(message["item"])
            else:
                self._messages.append(message)
            self._changed.notify()

    def get(self, wait: float | None = None) -> Message | None:
        """Returns the oldest message, or None after `wait` [s]."""
        with self._changed:
            self._changed.wait_for(lambda: self._messages, wait)
            if not self._messages:
                return None
            first = self._messages[0]["kind"] == "reports"
            return self._take_reports() if first else self._messages.popleft()

    def _add_report(self, item: Any) -> None:
        assert self._spool is not None, "no attempt has begun"  # noqa: S101
        self._spool.append(item)
        if not (self._messages and self._messages[-1]["kind"] == "reports"):
            self._messages.append({"kind": "reports", "count": 0})
        self._messages[-1]["count"] += 1

    def _take_reports(self) -> Message:
        """Returns the reports up to the next other message, as many as one call may carry."""
        assert self._spool is not None  # noqa: S101 - it took them
        count = 0
        while self._messages and self._messages[0]["kind"] == "reports" and count < MAX_ITEMS:
            waiting = self._messages[0]["count"]
            taken = min(waiting, MAX_ITEMS - count)
            count += taken
            if taken == waiting:
                self._messages.popleft()
            else:
                self._messages[0]["count"] -= taken
        return {"kind": "reports", "items": self._spool.take(count)}

    def _drop_overtaken(self, newer: Message) -> None:
        for old in [m for m in self._messages if m["kind"] == "checkpoint"]:
            if newer["best"] or not old["best"]:
                self._messages.remove(old)
                if old["path"] != newer["path"]:
                    Path(old["path"]).unlink(missing_ok=True)
