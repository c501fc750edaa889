"""`python -m tests.chaos.workers`: a process of simulated workers, each with one trial at a time.

SIGTERM makes them checkpoint, release their trials and go, within a lease. Standard library only,
so that a life costs a tenth of a second.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import secrets
import signal
import socket
from pathlib import Path
from typing import Any, Final

from tests.chaos.history import History
from tests.chaos.net import Http, Unreachable
from tests.chaos.simulated import FIRST_WAIT, LONGEST_WAIT, Attempt

PROTOCOL: Final = 1  # as studies.wire.PROTOCOL; workers import nothing of the product
CODE_HASH: Final = "c" * 64
CLAIM_WAIT: Final = 1.0  # how long a claim waits for work [s]
ANSWER_SECONDS: Final = 1.5  # a call without an answer is given up and sent again
UPLOAD_SECONDS: Final = 6.0


class Worker:
    """One worker: registers, claims, and lives through what it is granted."""

    def __init__(self, name: str, http: Http, history: History, said: argparse.Namespace) -> None:
        self.name, self._http, self._history, self._said = name, http, history, said
        self._rng = random.Random(f"{said.seed} {name}")
        self._seq = self._lives = 0
        self._id: int | None = None
        self._wait = FIRST_WAIT
        self.going = asyncio.Event()
        self._attempt: Attempt | None = None

    def go(self) -> None:
        """Asks the worker to checkpoint, release its trial and go."""
        self.going.set()
        if self._attempt is not None:
            self._attempt.ask("preempted")

    async def work(self) -> None:
        """Works until it is asked to go."""
        while not self.going.is_set():
            if self._id is None:
                await self._register()
            else:
                await self._claim()
        if self._id is not None:
            try:
                await self._send("goodbye", "DELETE", f"/workers/{self._id}", None)
            except Unreachable:
                return

    async def _register(self) -> None:
        body = {
            "name": f"{self.name}.{self._lives}",
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "device": "simulated",
            "protocol": self._said.protocol,
            "code_hash": self._said.code_hash,
        }
        status, answer = await self._try("register", "POST", "/workers", body)
        if status == 201:
            self._id = answer["worker_id"]
        elif status:  # refused: another protocol
            await self._pause(1.0)

    async def _claim(self) -> None:
        """Claims one trial and sees it to its end; a claim without an answer is sent again."""
        self._seq += 1
        token = f"{self._rng.getrandbits(128):032x}"
        body = {
            "seq": self._seq,
            "lease_token": token,
            "protocol": self._said.protocol,
            "code_hash": self._said.code_hash,
            "wait_ms": round(CLAIM_WAIT * 1_000),
        }
        status, answer = 0, None
        while status == 0:
            said = {**body, "wait_ms": 0} if self.going.is_set() else body
            status, answer = await self._try("claim", "POST", f"/workers/{self._id}/claim", said)
        if status == 200:
            await self._live(answer, token)
        elif status == 404:  # the server has forgotten us
            self._id, self._seq, self._lives = None, 0, self._lives + 1
        elif status != 409:
            await self._pause(0.3)

    async def _live(self, grant: dict[str, Any], token: str) -> None:
        attempt = Attempt(self._send, grant, token, self._said.code_hash)
        if self._said.code_hash != CODE_HASH:
            attempt.ask("incompatible")
        if self.going.is_set():
            attempt.ask("preempted")
        self._attempt = attempt
        try:
            await attempt.live(self._said.pace, self._rng)
        finally:
            self._attempt = None
        if attempt.ending == "incompatible":
            await self._pause(1.0)

    async def _try(self, op: str, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Returns (status, answer), or (0, None) after a rest where there was no answer."""
        try:
            status, answer = await self._send(op, method, path, body)
            if status not in (429, 502, 503, 504):
                self._wait = FIRST_WAIT
                return status, answer
        except Unreachable:
            pass
        await self._pause(self._rng.uniform(0, self._wait))
        self._wait = min(2 * self._wait, LONGEST_WAIT)
        return 0, None

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.going.wait()
                await asyncio.sleep(0.05)  # asked to go: hurry, but not in a tight loop
        except TimeoutError:
            return

    async def _send(
        self, op: str, method: str, path: str, body: Any, *, lease: str | None = None, **key: int
    ) -> tuple[int, Any]:
        """Makes one call and records how it was seen from here."""
        content = isinstance(body, bytes) or body is None
        call = self._history.invoke(op, self.name, body={} if content else body, **key)
        timeout = UPLOAD_SECONDS if op == "upload" else ANSWER_SECONDS
        if op == "claim":
            timeout += CLAIM_WAIT
        try:
            status, answer = await self._http.request(
                method, path, body, lease=lease, timeout=timeout
            )
        except Unreachable as error:
            self._history.done(call, "info", 0, {"error": str(error)[:100]})
            raise
        told = answer if isinstance(answer, dict) else {}
        self._history.done(call, "ok" if status < 300 else "fail", status, told)
        return status, answer


async def main() -> None:
    """Runs the workers until SIGTERM; a second one ends at once, as does a drain too long."""
    said = _arguments()
    history = History(said.history / f"{said.name}.jsonl")
    http = Http(said.port, said.token)
    workers = [Worker(f"{said.name}.{n}", http, history, said) for n in range(said.count)]

    def asked() -> None:
        if workers[0].going.is_set():
            os._exit(143)
        asyncio.get_running_loop().call_later(said.lease, os._exit, 143)
        for worker in workers:
            worker.go()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked)
    await asyncio.gather(*(worker.work() for worker in workers))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--token", required=True)
    parser.add_argument("--history", type=Path, required=True)
    parser.add_argument("--name", default=f"w-{secrets.token_hex(4)}")
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pace", type=float, default=0.1, help="mean time of a step [s]")
    parser.add_argument("--lease", type=float, default=2.0)
    parser.add_argument("--protocol", type=int, default=PROTOCOL)
    parser.add_argument("--code-hash", default=CODE_HASH)
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main())
