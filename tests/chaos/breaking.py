"""How each fault is injected: F1 to F25, each a function that does it for real.

Each returns True when the fault has happened, and leaves nothing broken behind. It holds the lock
of the server, database or workers that it makes unwell; faults on different ones overlap.
"""

from __future__ import annotations

import asyncio
import random
import resource
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, Protocol

from tests.chaos.databases import PostgresServer, SqliteFile
from tests.chaos.people import People
from tests.chaos.processes import GRANTED, LEASE, Server, Workers
from tests.chaos.proxy import Network, Weather
from tests.chaos.server import POINTS, WHENS

Inject = Callable[["Storm", random.Random], Awaitable[bool]]
DAY: Final = 86_400.0
UPLOAD_LIMIT: Final = 1_024  # of a file while the disk is full: no checkpoint fits [bytes]
WISH_SECONDS: Final = 20.0  # how long a person waits for a study with room


class Storm(Protocol):
    """What a fault may reach."""

    servers: list[Server]
    workers: list[Workers]
    herd: Workers  # starts now and then, many at once
    stranger: Workers  # of another version
    network: Network
    database: SqliteFile | PostgresServer
    database_lock: asyncio.Lock
    people: People
    blobs: Path

    async def take_copy(self) -> None:
        """Freezes the server and copies the SQLite file, to be looked into at the end."""


@asynccontextmanager
async def some_workers(storm: Storm, rng: random.Random) -> AsyncIterator[Workers]:
    """Gives a process of workers that is well; holds it."""
    free = [workers for workers in storm.workers if not workers.lock.locked()]
    chosen = rng.choice(free or storm.workers)
    async with chosen.lock:
        if not chosen.running:
            chosen.start()
        yield chosen


@asynccontextmanager
async def some_server(storm: Storm, rng: random.Random) -> AsyncIterator[Server]:
    """Gives a server that is well; holds it."""
    chosen = rng.choice(storm.servers)
    async with chosen.lock:
        if not chosen.running:
            chosen.reap()
            await chosen.start()
        yield chosen


async def kill_workers(storm: Storm, rng: random.Random) -> bool:
    """F1: kill -9 of a worker's process group."""
    async with some_workers(storm, rng) as workers:
        workers.kill()
        await asyncio.sleep(rng.uniform(0.0, 1.0))
    return True


async def lose_answer_and_kill(storm: Storm, rng: random.Random) -> bool:
    """F2: a write is done, its answer is lost, and the worker dies."""
    async with some_workers(storm, rng) as workers:
        lost = await workers.link.lose_answer(5.0)
        workers.kill()
    return lost is not None


async def zombie(storm: Storm, rng: random.Random) -> bool:
    """F3: a worker is stopped for longer than its lease, and goes on as if nothing had been."""
    async with some_workers(storm, rng) as workers:
        workers.signal(signal.SIGSTOP)
        await asyncio.sleep(rng.uniform(1.2, 2.5) * GRANTED)
        workers.signal(signal.SIGCONT)
    return True


async def preempt(storm: Storm, rng: random.Random) -> bool:
    """F4: SIGTERM; the worker checkpoints, releases its trials and goes."""
    async with some_workers(storm, rng) as workers:
        workers.signal(signal.SIGTERM)
        return await workers.ended(LEASE + 3.0)


async def preempt_and_kill(storm: Storm, rng: random.Random) -> bool:
    """F5: SIGTERM, then kill -9 in the middle of an upload."""
    async with some_workers(storm, rng) as workers:
        workers.link.weather = Weather(upload_rate=1_000.0)
        workers.signal(signal.SIGTERM)
        begun = await workers.link.upload_begun(3.0)
        workers.kill()
        workers.link.heal()
    return begun


async def kill_server(storm: Storm, rng: random.Random) -> bool:
    """F6: kill -9 of the server, and a new one on what is left."""
    async with some_server(storm, rng) as server:
        server.kill()
        await asyncio.sleep(rng.uniform(0.0, 0.5))
        await server.start()
    return True


async def crash_point(storm: Storm, rng: random.Random) -> bool:
    """F7: the server dies in, before or just after the commit of a claim, an end ..."""
    point = f"{rng.choice(list(POINTS))}:{rng.choice(WHENS)}"
    async with some_server(storm, rng) as server:
        died = await server.crash_at(point, 10.0)
        if died:
            await server.start()
    return died


async def freeze_server(storm: Storm, rng: random.Random) -> bool:
    """F8: the server is stopped for more than three leases."""
    async with some_server(storm, rng) as server:
        server.freeze()
        await asyncio.sleep(rng.uniform(3.05, 3.5) * LEASE)
        server.thaw()
    return True


async def restart_postgres(storm: Storm, rng: random.Random) -> bool:
    """F9: PostgreSQL restarts, crashes, loses our connections, or one of their processes."""
    database = storm.database
    assert isinstance(database, PostgresServer)
    ways: Sequence[Callable[[], Any]] = (
        lambda: database.restart(signal.SIGINT),
        lambda: database.restart(signal.SIGQUIT),
        database.terminate_backends,
        database.kill_backend,
    )
    async with storm.database_lock:
        await asyncio.to_thread(rng.choice(ways))
    return True


async def trouble_sqlite(storm: Storm, rng: random.Random) -> bool:
    """F11: a reader holds the file for up to 3 s; a copy as of a crash; a disk that fails."""
    assert isinstance(storm.database, SqliteFile)
    way = rng.randrange(3)
    if way == 0:
        async with storm.database_lock:
            await asyncio.to_thread(storm.database.hold, rng.uniform(0.3, 3.0))
        return True
    async with some_server(storm, rng) as server:
        if way == 1:
            await storm.take_copy()
            return True
        server.limit_files(0)  # SQLite sees an error of writing: the server must not go on
        if ended := await server.ended_broken(5.0):
            await server.start()
        return ended


async def cut_everybody_off(storm: Storm, rng: random.Random) -> bool:
    """F12: no worker reaches the server, for less or for more than a lease; nobody else is free."""
    seconds = rng.choice((rng.uniform(0.2, 0.8) * LEASE, rng.uniform(1.2, 2.0) * GRANTED))
    storm.network.down = True
    for workers in storm.workers:
        workers.link.cut()
    await asyncio.sleep(seconds)
    storm.network.down = False
    return True


async def cut_some_off(storm: Storm, rng: random.Random) -> bool:
    """F13: one process of workers is cut off for longer than a lease, and others are free."""
    async with some_workers(storm, rng) as workers:
        workers.link.weather = Weather(cut=True)
        workers.link.cut()
        await asyncio.sleep(rng.uniform(1.2, 2.5) * GRANTED)
        workers.link.heal()
    return True


async def half_open(storm: Storm, rng: random.Random) -> bool:
    """F14: requests pass, answers are lost."""
    return await _weather(storm, rng, Weather(half_open=True), rng.uniform(1.0, 4.0))


async def copies(storm: Storm, rng: random.Random) -> bool:
    """F15: each POST is sent one to three times, up to 5 s late, and overtakes itself."""
    weather = Weather(copies=2, copy_seconds=5.0, delay=(0.0, 0.2))
    return await _weather(storm, rng, weather, rng.uniform(2.0, 5.0))


async def slow_uploads(storm: Storm, rng: random.Random) -> bool:
    """F16: checkpoints come a few bytes at a time."""
    return await _weather(storm, rng, Weather(upload_rate=500.0), rng.uniform(2.0, 5.0))


async def _weather(storm: Storm, rng: random.Random, weather: Weather, seconds: float) -> bool:
    async with some_workers(storm, rng) as workers:
        workers.link.weather = weather
        await asyncio.sleep(seconds)
        workers.link.heal()
    return True


async def herd(storm: Storm, rng: random.Random) -> bool:
    """F17: the server restarts, and everybody and a herd of new workers come back at once."""
    async with some_server(storm, rng) as server, storm.herd.lock:
        storm.network.down = True
        for workers in storm.workers:
            workers.link.cut()
        server.kill()
        storm.herd.start()
        await server.start()
        storm.network.down = False
    async with storm.herd.lock:
        await asyncio.sleep(1.5 * LEASE)
        storm.herd.signal(signal.SIGTERM)
        return await storm.herd.ended(LEASE + 3.0)


async def fill_disk(storm: Storm, rng: random.Random) -> bool:
    """F18: the server can write no checkpoint; then it can again. PostgreSQL's disk has room."""
    async with some_server(storm, rng) as server:
        server.limit_files(UPLOAD_LIMIT)
        await asyncio.sleep(rng.uniform(1.0, 2.0))
        server.limit_files(resource.RLIM_INFINITY)
    return True


async def jump_clock(storm: Storm, rng: random.Random) -> bool:
    """F19: the server's wall clock jumps, by a day or by seconds, forth or back."""
    async with some_server(storm, rng) as server:
        server.shift_clock(rng.choice((DAY, -DAY, rng.uniform(-30.0, 30.0))))
        await asyncio.sleep(0.2)
    return True


async def corrupt(storm: Storm, rng: random.Random) -> bool:
    """F20: the newest checkpoints rot on disk, and a worker that wrote some of them dies."""
    written: dict[Path, float] = {}
    for file in storm.blobs.glob("??/*"):
        with suppress(FileNotFoundError):  # it was collected meanwhile
            written[file] = file.stat().st_mtime
    newest = sorted(written, key=lambda file: written[file])[-8:]
    if len(newest) < 2:
        return False
    for file in newest:
        with suppress(FileNotFoundError):
            rot(file, rng.choice(newest), rng)
    async with some_workers(storm, rng) as workers:
        workers.kill()
    return True


def rot(file: Path, other: Path, rng: random.Random) -> None:
    """Flips a bit of a file, cuts it short, empties it, or swaps its content with another's."""
    content = bytearray(file.read_bytes())
    match rng.randrange(4):
        case 0 if content:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        case 1:
            content = content[: len(content) // 2]
        case 2:
            content = bytearray()
        case _:
            content, own = bytearray(other.read_bytes()), content
            _overwrite(other, own)
    _overwrite(file, content)


def _overwrite(file: Path, content: bytes) -> None:
    with file.open("r+b") as there:  # a file that is gone stays gone
        there.truncate(0)
        there.write(content)


def enqueue(*behaviours: str) -> Inject:
    """Returns a fault that is a trial which misbehaves; a person enqueues it."""

    async def inject(storm: Storm, rng: random.Random) -> bool:
        return await storm.people.enqueue(rng.choice(behaviours), WISH_SECONDS)

    return inject


async def stranger(storm: Storm, rng: random.Random) -> bool:
    """F25: a worker of another protocol, or of other code."""
    async with storm.stranger.lock:
        other = rng.choice(({"protocol": 99}, {"code_hash": "d" * 64}))
        storm.stranger.start(**other)
        await asyncio.sleep(rng.uniform(1.0, 3.0))
        storm.stranger.signal(signal.SIGTERM)
        return await storm.stranger.ended(LEASE + 3.0)
