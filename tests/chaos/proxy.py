"""The network between workers and server: a proxy that breaks it in every way.

It knows where a request and an answer begin and end, so that it can lose the one or the other,
send a request several times and late, or let it through a byte at a time. One link per process of
workers; each breaks on its own.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from tests.chaos.net import Message, Streams, close, connect, exchange_once, read_message

COPY_SECONDS: Final = 25.0  # how long a copy's answer is waited for
_CHUNK: Final = 64  # bytes of a slow upload at once


@dataclass
class Weather:
    """What a link does to what passes; the default is nothing."""

    cut: bool = False  # no connection, both ways
    half_open: bool = False  # requests pass, answers are lost
    delay: tuple[float, float] = (0.0, 0.0)  # of each request, drawn between [s]
    copies: int = 0  # of each POST, at most, besides itself
    copy_seconds: float = 0.0  # how late a copy comes, at most; the original too, now and then
    upload_rate: float | None = None  # [bytes/s]


@dataclass
class Network:
    """What all links share."""

    down: bool = False  # nothing passes anywhere


@dataclass
class Link:
    """One way from a process of workers to the server."""

    network: Network
    target: Callable[[], int]  # the server's port
    rng: random.Random
    weather: Weather = field(default_factory=Weather)
    port: int = 0

    def __post_init__(self) -> None:
        self._open: set[asyncio.StreamWriter] = set()
        self._copies: set[asyncio.Task[None]] = set()
        self._lose_next: asyncio.Future[str] | None = None
        self._uploading = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listens on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512)
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Ends it and what is under way."""
        assert self._server is not None
        self._server.close()
        self.cut()
        for copy in self._copies:
            copy.cancel()

    @property
    def _is_cut(self) -> bool:
        return self.weather.cut or self.network.down

    def cut(self) -> None:
        """Breaks every connection off."""
        for writer in list(self._open):
            writer.transport.abort()

    def heal(self) -> None:
        """Lets everything pass again; copies that are under way still arrive."""
        self.weather = Weather()

    async def lose_answer(self, seconds: float) -> str | None:
        """Loses the answer of the next write; returns its request line, once it was answered."""
        self._lose_next = asyncio.get_running_loop().create_future()
        try:
            return await asyncio.wait_for(self._lose_next, seconds)
        except TimeoutError:
            return None
        finally:
            self._lose_next = None

    async def upload_begun(self, seconds: float) -> bool:
        """Returns True in the middle of the next upload; False when none comes in time."""
        self._uploading.clear()
        with suppress(TimeoutError):
            return await asyncio.wait_for(self._uploading.wait(), seconds)
        return False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream: Streams | None = None
        self._open.add(writer)
        try:
            while not self._is_cut:
                request = await read_message(reader)
                if upstream is None:
                    upstream = await connect(self.target())
                    self._open.add(upstream[1])
                answer = await self._pass(request, upstream)
                if answer is None:
                    return
                writer.write(answer.wire)
                await writer.drain()
                if answer.closes:
                    return
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            return
        except asyncio.CancelledError:  # the storm is over; asyncio.streams would log it
            return
        finally:
            self._open.discard(writer)
            writer.transport.abort()
            if upstream is not None:
                self._open.discard(upstream[1])
                close(upstream)

    async def _pass(self, request: Message, upstream: Streams) -> Message | None:
        """Returns the answer, or None where it is lost."""
        weather = self.weather
        if weather.copies and request.first.startswith("POST"):
            self._copy(request, weather)
            if self.rng.random() < 0.3:  # a copy may overtake it
                await asyncio.sleep(self.rng.uniform(0.0, weather.copy_seconds))
        if weather.delay[1]:
            await asyncio.sleep(self.rng.uniform(*weather.delay))
        await self._forward(request, upstream[1], weather.upload_rate)
        answer = await read_message(upstream[0])
        waiting = self._lose_next
        if waiting is not None and not waiting.done() and _writes(request):
            waiting.set_result(request.first)
            return None
        while self.weather.half_open:  # the connection stands, and nothing comes
            await asyncio.sleep(0.1)
            answer = None
        return None if self._is_cut else answer

    def _copy(self, request: Message, weather: Weather) -> None:
        for _ in range(self.rng.randint(1, weather.copies)):
            late = self.rng.uniform(0.0, weather.copy_seconds)
            task = asyncio.create_task(self._send_copy(request, late))
            self._copies.add(task)
            task.add_done_callback(self._copies.discard)

    async def _send_copy(self, request: Message, late: float) -> None:
        await asyncio.sleep(late)
        await exchange_once(self.target(), request.wire, COPY_SECONDS)

    async def _forward(
        self, request: Message, writer: asyncio.StreamWriter, rate: float | None
    ) -> None:
        if rate is None or not request.first.startswith("PUT"):
            writer.write(request.wire)
            await writer.drain()
            return
        writer.write(request.head)
        for start in range(0, len(request.body), _CHUNK):
            writer.write(request.body[start : start + _CHUNK])
            await writer.drain()
            if start:
                self._uploading.set()
            await asyncio.sleep(_CHUNK / rate)


def _writes(request: Message) -> bool:
    """True for a request whose effect must not be lost nor counted twice."""
    ends = ("/claim", "/reports", "/finish", "/checkpoints")
    return request.first.startswith("POST") and request.first.split()[1].endswith(ends)
