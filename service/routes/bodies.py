"""How much a request may send. Uploads have caps of their own (service/blobs.py)."""

from __future__ import annotations

import re
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import problems
from studies.errors import TooLarge
from studies.imports import PATH

MAX_BODY: Final = 1 << 20  # [bytes]; a thousand reports take a third of it (measured)
MAX_IMPORT: Final = 64 << 20  # of a whole study from elsewhere [bytes]
_UPLOAD: Final = re.compile(r"/api/v1/(data|blobs)/[^/]*")


class Cap:
    """ASGI middleware inside the gate: refuses a body that is too large before it is read."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on; one without a length is read to its end first."""
        upload = scope.get("method") == "PUT" and _UPLOAD.fullmatch(scope["path"])
        headers = {} if upload or scope["type"] != "http" else dict(scope["headers"])
        limit = MAX_IMPORT if scope.get("path") == PATH else MAX_BODY
        too_large = int(headers.get(b"content-length", 0)) > limit
        if b"transfer-encoding" in headers:
            read = await _read(receive, limit)
            too_large = read is None
            receive = _given(read or [], receive)
        if too_large:
            error = TooLarge(f"a request may have {limit} bytes")
            await problems.answer(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)


async def _read(receive: Receive, limit: int) -> list[Message] | None:
    """Returns the messages of a body; None: it is too large, and the rest was not read."""
    read, size, more = [], 0, True
    while more:
        message = await receive()
        read.append(message)
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
        if size > limit:
            return None
    return read


def _given(read: list[Message], receive: Receive) -> Receive:
    """Returns a `receive` that gives what was read, then what comes."""
    left = read[::-1]

    async def again() -> Message:
        return left.pop() if left else await receive()

    return again
