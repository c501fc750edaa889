"""JSON messages over a pipe between two processes of one worker; nothing is ever unpickled."""

from __future__ import annotations

import json
import threading
from multiprocessing.connection import Connection
from typing import Any


class Pipe:
    """JSON messages over a connection; each has a `kind`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()

    def send(self, kind: str, **content: Any) -> None:
        """Sends a message, from any thread; raises OSError when the other side is gone."""
        message = json.dumps({"kind": kind, **content}).encode()
        with self._sending:
            self._connection.send_bytes(message)

    def receive(self, wait: float | None = None) -> dict[str, Any] | None:
        """Returns the next message, or None after `wait` [s]; raises EOFError at the end."""
        if wait is not None and not self._connection.poll(wait):
            return None
        message: dict[str, Any] = json.loads(self._connection.recv_bytes())
        return message
