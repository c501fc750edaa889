"""Reports and heartbeats, which come by the thousand, answered without the web framework.

The routes in workers.py stay the contract: they are in the OpenAPI document, and a request that is
not quite plain (its path, headers or body) goes to them as it came. A plain one calls the same
functions from here, for a tenth of the time (docs/decisions/0009-the-write-path.md).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final

from pydantic import ValidationError
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import problems
from service.dispatch.claim import hash_token
from service.routes import workers
from service.routes.parts import Parts
from service.store.fence import AttemptKey
from studies import wire
from studies.errors import LmtuneError

# Numbers that every database takes: what is longer is for the routes to refuse.
_PATH: Final = re.compile(r"/api/v1/trials/([0-9]{1,18})/attempts/([0-9]{1,9})/(reports|heartbeat)")
_CALLS: Final[dict[str, tuple[type[wire.Body], Callable[..., Awaitable[wire.View]]]]] = {
    "reports": (wire.ReportBody, workers.report),
    "heartbeat": (wire.HeartbeatBody, workers.heartbeat),
}
_LEASE: Final = wire.LEASE_HEADER.lower().encode()


_Call = tuple[Callable[..., Awaitable[wire.View]], AttemptKey, wire.Body]


class Express:
    """ASGI middleware, the innermost: whatever guards the routes has let the request pass."""

    def __init__(self, app: ASGIApp, parts: Parts) -> None:
        self._app, self._parts = app, parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a plain report or heartbeat; passes everything else on."""
        path = _PATH.fullmatch(scope["path"]) if scope.get("method") == "POST" else None
        if path is None:
            await self._app(scope, receive, send)
            return
        first = await receive()
        call = _parsed(path, scope, first)
        if call is None:
            await self._app(scope, _replayed(first, receive), send)
            return
        endpoint, key, body = call
        try:
            answer = await endpoint(key, body, self._parts)
            response = Response(answer.model_dump_json(), media_type="application/json")
        except LmtuneError as error:
            response = problems.answer(error)
        await response(scope, receive, send)


def _parsed(path: re.Match[str], scope: Scope, first: Message) -> _Call | None:
    """Returns the function to call, who calls and the body; None: the routes know better."""
    headers = dict(reversed(scope["headers"]))  # of a header sent twice the first counts
    lease = headers.get(_LEASE)
    plain = headers.get(b"content-type") == b"application/json" and not first.get("more_body")
    if lease is None or not plain or first["type"] != "http.request":
        return None
    trial_id, attempt, name = path.groups()
    model, endpoint = _CALLS[name]
    try:
        body = model.model_validate_json(first["body"])
    except ValidationError:
        return None
    lease_hash = hash_token(lease.decode("latin-1"))
    return endpoint, AttemptKey(int(trial_id), int(attempt), lease_hash), body


def _replayed(first: Message, receive: Receive) -> Receive:
    """Returns a `receive` that begins with a message that was taken from it."""
    taken = [first]

    async def again() -> Message:
        return taken.pop() if taken else await receive()

    return again
