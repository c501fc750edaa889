"""`python -m tests.acceptance.herd URL TOKEN NAME COUNT`: that many workers start within a second.

Each is a raw connection that registers and claims until it is granted a trial, and does as a
worker does: it sends a call again after a 503 or a broken connection, with jitter. Prints one line
of JSON: how long the slowest call and the last grant took, and how often each status came.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import secrets
import sys
import time
from collections import Counter
from typing import Any

WAIT_MS = 20_000
PATIENCE = 500.0  # [s] then the herd is said to hang


class Calf:
    """One worker: its connection and what it saw."""

    def __init__(self, herd: Herd, name: str) -> None:
        self._herd, self._name = herd, name
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def live(self, after: float) -> None:
        """Starts after so many seconds; returns once it was granted a trial."""
        await asyncio.sleep(after)
        words = {"host": "h", "pid": 1, "device": "cpu", "protocol": 1, "code_hash": "c"}
        known = await self._insist("/workers", {"name": self._name, **words})
        token, granted, seq = secrets.token_hex(16), None, 0
        claim = {"lease_token": token, "protocol": 1, "code_hash": "c", "wait_ms": WAIT_MS}
        while granted is None:
            seq += 1
            path = f"/workers/{known['worker_id']}/claim"
            granted = await self._insist(path, {"seq": seq, **claim})
        self._herd.granted.append(time.monotonic())
        if self._streams is not None:
            self._streams[1].close()

    async def _insist(self, path: str, body: dict[str, Any]) -> Any:
        """Returns the answer to a call, sent again until it has one that is no 503."""
        while True:
            began = time.monotonic()
            try:
                status, answer = await self._call(path, json.dumps(body).encode())
            except (OSError, asyncio.IncompleteReadError):
                status, answer, self._streams = "broken", None, None
            self._herd.seen[str(status)] += 1
            self._herd.slowest = max(self._herd.slowest, time.monotonic() - began)
            if status not in ("broken", 503):
                return answer
            await asyncio.sleep(random.uniform(0.1, 2.0))

    async def _call(self, path: str, body: bytes) -> tuple[int, Any]:
        herd = self._herd
        if self._streams is None:
            self._streams = await asyncio.open_connection(herd.host, herd.port)
        reader, writer = self._streams
        head = (
            f"POST /api/v1{path} HTTP/1.1\r\nHost: {herd.host}:{herd.port}\r\n"
            f"Authorization: Bearer {herd.token}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:] if line)
        content = await reader.readexactly(int(headers.get("content-length", 0)))
        status = int(lines[0].split()[1])
        assert status != 503 or "retry-after" in headers, lines
        return status, json.loads(content) if content else None


class Herd:
    """All of them, and what they saw."""

    def __init__(self, url: str, token: str) -> None:
        self.host, _, port = url.removeprefix("http://").partition(":")
        self.port, self.token = int(port), token
        self.seen: Counter[str] = Counter()
        self.slowest = 0.0
        self.granted: list[float] = []

    async def start(self, name: str, count: int) -> dict[str, Any]:
        """Returns what they saw, once each has a trial or patience is over."""
        began = time.monotonic()
        lives = [Calf(self, f"{name}-{n}").live(n / count) for n in range(count)]
        try:
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*lives)
        except TimeoutError:
            self.seen["hung"] = count - len(self.granted)
        last = max(self.granted, default=began) - began
        said = {"slowest": self.slowest, "last": last, "granted": len(self.granted)}
        return {**said, "seen": dict(self.seen)}


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 16_384), most))
    url, token, name, count = sys.argv[1:]
    print(json.dumps(asyncio.run(Herd(url, token).start(name, int(count)))))  # noqa: T201
