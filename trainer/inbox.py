"""What the child said and the supervisor has not yet dealt with."""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path
from typing import Any

Message = dict[str, Any]


class Inbox:
    """Messages in order, from one thread to another; at most two checkpoints wait among them.

    A checkpoint that a newer one overtakes is dropped and its file removed, so that a server
    which is slow or away fills no disk; the best so far is dropped for a better one only.
    """

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._changed = threading.Condition()

    def put(self, message: Message) -> None:
        """Adds a message."""
        with self._changed:
            if message["kind"] == "checkpoint":
                self._drop_overtaken(message)
            self._messages.append(message)
            self._changed.notify()

    def get(self, wait: float) -> Message | None:
        """Returns the oldest message, or None after `wait` [s]."""
        with self._changed:
            self._changed.wait_for(lambda: self._messages, wait)
            return self._messages.popleft() if self._messages else None

    def _drop_overtaken(self, newer: Message) -> None:
        for old in [m for m in self._messages if m["kind"] == "checkpoint"]:
            if newer["best"] or not old["best"]:
                self._messages.remove(old)
                if old["path"] != newer["path"]:
                    Path(old["path"]).unlink(missing_ok=True)
