"""JSON messages over a pipe between two processes of one worker; nothing is ever unpickled."""

from __future__ import annotations

import json
from multiprocessing.connection import Connection
from typing import Any


class Pipe:
    """JSON messages over a connection; each has a `kind`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def send(self, kind: str, **content: Any) -> None:
        """Sends a message; raises OSError when the other side is gone."""
        self._connection.send_bytes(json.dumps({"kind": kind, **content}).encode())

    def receive(self, wait: float | None = None) -> dict[str, Any] | None:
        """Returns the next message, or None after `wait` [s]; raises EOFError at the end."""
        if wait is not None and not self._connection.poll(wait):
            return None
        message: dict[str, Any] = json.loads(self._connection.recv_bytes())
        return message
