"""Light clients of lmtune's worker protocol: raw sockets in a process of its own, no HTTP library.

`python -m tests.benchmarks._load ORDER` takes its order as JSON and prints what it saw as JSON.
Each client is a worker: it registers, claims, reports step by step, finishes, and claims again.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

TRIAL = "/api/v1/trials/{trial_id}/attempts/{attempt}"


@dataclass(frozen=True)
class Order:
    """What a load process is to do; `seconds` after a warm-up of `warm` seconds are measured."""

    url: str
    token: str
    clients: int = 1
    seconds: float = 5.0
    warm: float = 1.0
    rate: float = 0.0  # reports a second and client (open loop); 0: as fast as they are answered
    claims_only: bool = False  # each client claims, finishes, and claims again at `rate`
    herd: bool = False  # every client claims once, all at the same moment


@dataclass
class Seen:
    """What came of it; latencies in seconds, from the moment a call was due."""

    claim: list[float] = field(default_factory=list)
    report: list[float] = field(default_factory=list)
    finish: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0
    granted: list[float] = field(default_factory=list)  # herd: since the start
    answered: list[float] = field(default_factory=list)  # herd: each call, whatever its answer


class Connection:
    """One kept-alive connection; a request is answered before the next is sent."""

    def __init__(self, order: Order, seen: Seen) -> None:
        host, port = order.url.removeprefix("http://").split(":")
        self._where = (host, int(port))
        self._head = f"Host: {host}:{port}\r\nAuthorization: Bearer {order.token}\r\n"
        self._seen = seen
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(
        self, method: str, path: str, body: Any, lease: str = ""
    ) -> tuple[int, dict[str, Any], Any]:
        """Returns status, headers and the decoded body of the answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._where)
        reader, writer = self._streams
        content = json.dumps(body).encode()
        extra = f"Lmtune-Lease: {lease}\r\n" if lease else ""
        head = (
            f"{method} {path} HTTP/1.1\r\n{self._head}{extra}"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        writer.write(head.encode() + content)
        status, headers = _parse(await reader.readuntil(b"\r\n\r\n"))
        length = int(headers.get("content-length", 0))
        content = await reader.readexactly(length) if length else b""
        self._seen.statuses[status] += 1
        return status, headers, json.loads(content) if content else None

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def _parse(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return int(first.split(" ", 2)[1]), {name.lower(): value.strip() for name, value in pairs}


class Client:
    """One simulated worker."""

    def __init__(self, order: Order, seen: Seen, number: int) -> None:
        self.order, self.seen, self.number = order, seen, number
        self.http = Connection(order, seen)
        self.began = self.over = 0.0
        self.worker_id = self.seq = 0

    async def register(self) -> None:
        name = f"load-{os.getpid()}-{self.number}"
        body = {"name": name, "host": "bench", "pid": os.getpid(), "device": "cpu"}
        body |= {"protocol": 1, "code_hash": "bench"}
        _, _, known = await self.until_answered("POST", "/api/v1/workers", body)
        self.worker_id = known["worker_id"]

    async def claim(self, wait_ms: int = 1_000) -> tuple[dict[str, Any] | None, str]:
        """Returns a grant and its lease token; 204 and 503 are asked again by the caller."""
        self.seq += 1
        lease = f"{os.getpid():08x}{self.number:08x}{self.seq:016x}"
        body = {"seq": self.seq, "lease_token": lease, "protocol": 1, "code_hash": "bench"}
        path = f"/api/v1/workers/{self.worker_id}/claim"
        _, _, grant = await self.until_answered("POST", path, {**body, "wait_ms": wait_ms})
        return grant, lease

    async def until_answered(
        self, method: str, path: str, body: Any, lease: str = ""
    ) -> tuple[int, Any, Any]:
        """Sends it again after Retry-After for as long as the server says 503."""
        while True:
            sent = time.perf_counter()
            status, headers, answer = await self.http.call(method, path, body, lease)
            if self.order.herd:
                self.seen.answered.append(time.perf_counter() - sent)
            if status != 503:
                return status, headers, answer
            await asyncio.sleep(float(headers["retry-after"]))

    def note(self, kind: str, due: float) -> None:
        """Counts a latency if its call was due in the measured time."""
        if self.began <= due <= self.over:
            getattr(self.seen, kind).append(time.perf_counter() - due)

    async def work(self) -> None:
        """Trains trials to their end until the time is over."""
        while time.perf_counter() < self.over:
            due = time.perf_counter()
            grant, lease = await self.claim()
            if grant is None:
                continue
            self.note("claim", due)
            await self.train(grant, lease)

    async def train(self, grant: dict[str, Any], lease: str) -> None:
        path = TRIAL.format(**grant)
        due = time.perf_counter()
        for step in range(1, grant["max_step"] + 1):
            due = await self.next_due(due)
            if due > self.over:
                return
            item = {"step": step, "metrics": {"validation_loss": 2.0 + 1.0 / step}}
            item |= {"tokens": step * 4_096, "wall_ms": step * 100}
            await self.until_answered("POST", f"{path}/reports", {"items": [item]}, lease)
            self.note("report", due)
        due = time.perf_counter()
        said = {"outcome": "ok", "final_step": grant["max_step"]}
        await self.until_answered("POST", f"{path}/finish", said, lease)
        self.note("finish", due)

    async def next_due(self, last: float) -> float:
        """Returns when the next report is due: now, or in open loop one period after the last.

        A report that is answered late does not put off the next one's due time.
        """
        if not self.order.rate:
            return time.perf_counter()
        due = last + 1.0 / self.order.rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        return due

    async def claim_only(self) -> None:
        """Claims at the order's rate; each trial ends with its one report."""
        due = time.perf_counter()
        while (due := await self.next_due(due)) < self.over:
            grant, lease = await self.claim()
            if grant is not None:
                self.note("claim", due)
                await self.train_fast(grant, lease)

    async def train_fast(self, grant: dict[str, Any], lease: str) -> None:
        path, last = TRIAL.format(**grant), grant["max_step"]
        item = {"step": last, "metrics": {"validation_loss": 2.0 + (grant["number"] % 97) / 97}}
        await self.until_answered("POST", f"{path}/reports", {"items": [item]}, lease)
        said = {"outcome": "ok", "final_step": last}
        await self.until_answered("POST", f"{path}/finish", said, lease)

    async def join_herd(self) -> None:
        """Registers and claims within the same second as everybody; asks until it is granted."""
        start = time.perf_counter()
        await asyncio.sleep(self.number / self.order.clients)
        await self.register()
        grant = None
        while grant is None and time.perf_counter() < self.over:
            grant, _ = await self.claim(wait_ms=20_000)
        if grant is not None:
            self.seen.granted.append(time.perf_counter() - start)


async def run(order: Order) -> Seen:
    """Returns what the clients saw."""
    seen = Seen()
    clients = [Client(order, seen, number) for number in range(order.clients)]
    if not order.herd:
        await asyncio.gather(*(client.register() for client in clients))
    gc.freeze()
    began = time.perf_counter() + order.warm
    for client in clients:
        client.began, client.over = began, began + order.seconds
    does = Client.work
    if order.herd or order.claims_only:
        does = Client.join_herd if order.herd else Client.claim_only
    await asyncio.gather(*(does(client) for client in clients))
    seen.seconds = order.seconds
    for client in clients:
        client.http.close()
    return seen


def main() -> None:
    """Runs the order in the first argument."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a socket for each client
    seen = asyncio.run(run(Order(**json.loads(sys.argv[1]))))
    sys.stdout.write(json.dumps(vars(seen)))


if __name__ == "__main__":
    main()
