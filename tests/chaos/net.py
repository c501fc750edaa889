"""HTTP/1.1 over asyncio streams, as little of it as the storm needs: framing by Content-Length."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

_NO_BODY: Final = ("204", "304")
CONNECT_SECONDS: Final = 2.0
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Unreachable(Exception):
    """No answer: nobody can say whether the request was carried out."""


@dataclass(frozen=True)
class Message:
    """A request or a response, as it stood on the wire."""

    head: bytes
    body: bytes

    @property
    def first(self) -> str:
        """The request line or the status line."""
        return self.head.split(b"\r\n", 1)[0].decode("latin-1")

    @property
    def status(self) -> int:
        """The status of a response."""
        return int(self.first.split()[1])

    @property
    def wire(self) -> bytes:
        """All of it."""
        return self.head + self.body

    @property
    def closes(self) -> bool:
        """True when the other side closes the connection after it."""
        return b"\r\nconnection: close" in self.head.lower()


async def read_message(reader: asyncio.StreamReader) -> Message:
    """Returns the next message; raises OSError or EOFError where the stream breaks off."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n")[1:]:
        if line.startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    if head.split(b" ", 2)[1].decode("latin-1") in _NO_BODY:
        length = 0
    return Message(head, await reader.readexactly(length) if length else b"")


_GOING: Final[set[asyncio.Future[None]]] = set()  # asyncio itself keeps tasks weakly only


def close(streams: Streams | None) -> None:
    """Breaks a connection off, both ways, without a goodbye."""
    if streams is not None:
        streams[1].transport.abort()
        going = asyncio.ensure_future(_gone(streams[1]))
        _GOING.add(going)
        going.add_done_callback(_GOING.discard)


async def _gone(writer: asyncio.StreamWriter) -> None:
    """Takes note of how a connection ended; else asyncio says that nobody did."""
    with suppress(OSError):
        await writer.wait_closed()


class Http:
    """A client of one server; keeps connections open, and sends each request once."""

    def __init__(self, port: int, token: str) -> None:
        self._port, self._token = port, token
        self._idle: list[Streams] = []

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        lease: str | None = None,
        timeout: float,
    ) -> tuple[int, Any]:
        """Returns (status, decoded body); bytes are sent and given back as they are.

        Raises:
            Unreachable: no whole answer came within `timeout` [s].
        """
        content = body if isinstance(body, bytes) else b"" if body is None else _json(body)
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        lines = [
            f"{method} /api/v1{path} HTTP/1.1",
            "Host: 127.0.0.1",
            f"Authorization: Bearer {self._token}",
            f"Content-Type: {kind}",
            f"Content-Length: {len(content)}",
            *([f"Lmtune-Lease: {lease}"] if lease else []),
        ]
        request = "\r\n".join(lines).encode() + b"\r\n\r\n" + content
        message = await self._exchange(request, timeout)
        if message.body and b"json" in message.head.lower():
            return message.status, json.loads(message.body)
        return message.status, message.body

    async def _exchange(self, request: bytes, timeout: float) -> Message:
        streams: Streams | None = None
        try:
            async with asyncio.timeout(timeout):
                streams = self._idle.pop() if self._idle else await connect(self._port)
                streams[1].write(request)
                await streams[1].drain()
                message = await read_message(streams[0])
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError) as error:
            close(streams)
            raise Unreachable(repr(error)) from error
        except asyncio.CancelledError:
            close(streams)
            raise
        if message.closes:
            close(streams)
        else:
            self._idle.append(streams)
        return message

    def close(self) -> None:
        """Closes the idle connections."""
        while self._idle:
            close(self._idle.pop())


async def connect(port: int) -> Streams:
    """Returns a new connection to a port of the loopback; raises OSError or TimeoutError."""
    async with asyncio.timeout(CONNECT_SECONDS):
        return await asyncio.open_connection("127.0.0.1", port)


async def exchange_once(port: int, request: bytes, timeout: float) -> None:
    """Sends a request on a connection of its own and throws the answer away, if one comes."""
    streams: Streams | None = None
    with suppress(OSError, EOFError, TimeoutError):
        async with asyncio.timeout(timeout):
            streams = await connect(port)
            streams[1].write(request)
            await read_message(streams[0])
    close(streams)


def _json(body: Any) -> bytes:
    return json.dumps(body).encode()
