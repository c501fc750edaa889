"""`make storm`: one seeded supervisor that starts everything, breaks it, and looks what holds.

    python -m tests.chaos.storm --seed 7 --trials 100 --faults 60 --db sqlite

It draws faults and people's actions from the seed, about a fault a second, and opens studies as
fast as the faults come, so that both end together. Then it ends all faults, waits until every study
has ENDED, and has the checker read what was seen and what the database holds. The last line is

    lost=0 duplicated=0 stuck=0 mismatched=0 trials=.. faults=.. (kinds) seconds=..
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.chaos import checker, rows
from tests.chaos.databases import PostgresServer, SqliteFile, open_database
from tests.chaos.faults import FAULTS, deck, on
from tests.chaos.history import History, read, write
from tests.chaos.people import People
from tests.chaos.processes import LEASE, TOKEN, Server, Workers
from tests.chaos.proxy import Link, Network

PROCESSES: Final = 6  # of workers
PER_PROCESS: Final = 2
HERD: Final = 60  # workers that come at once in F17
GAP: Final = 0.7  # mean time between two faults [s]
AT_ONCE: Final = 8  # faults that may last at the same time
AHEAD: Final = 0.15  # how far trials may be ahead of faults, or behind, as a part of all
QUIET_SECONDS: Final = 90.0  # without any change when all faults are over: something is stuck
SHOWN: Final = 20  # violations that are printed
TRIES: Final = 6  # of one kind that comes to nothing, before another kind takes its place
DROPPED: Final = 12  # tries that come to nothing in a row: then the storm itself is broken


class Storm:
    """Everything that runs in one storm; see `breaking.Storm` for what a fault may reach."""

    def __init__(self, said: argparse.Namespace, folder: Path) -> None:
        self.said, self.folder, self.blobs = said, folder, folder / "blobs"
        self.begun = time.monotonic()
        (folder / "history").mkdir()
        self.history = History(folder / "history" / "supervisor.jsonl")
        self.rng = random.Random(f"{said.seed} storm")
        self.database: SqliteFile | PostgresServer = open_database(said.db, folder)
        self.database_lock = asyncio.Lock()
        self.network = Network()
        alone = self.history if said.servers == 1 else None
        count = range(said.servers)
        self.servers = [Server(folder, n, self.database.url, alone) for n in count]
        self.people = People(self._any_port(self.rng), self.history, said.seed, said.trials)
        self.workers = [self._workers(f"w{n}", PER_PROCESS) for n in range(PROCESSES)]
        self.herd = self._workers("herd", HERD)
        self.stranger = self._workers("stranger", 2)
        self.kinds = on(said.db, said.kinds)
        self.copies: list[checker.Copy] = []
        self.done: Counter[str] = Counter()
        self.surprises: list[str] = []

    def _workers(self, name: str, count: int) -> Workers:
        rng = random.Random(f"{self.said.seed} {name}")
        link = Link(self.network, self._any_port(rng), rng)
        options = {"token": TOKEN, "count": count, "seed": self.said.seed, "lease": LEASE}
        return Workers(name, self.folder, link, {**options, "pace": self.said.pace})

    def _any_port(self, rng: random.Random) -> Callable[[], int]:
        """Returns what gives the port of a server that runs, or of any."""

        def port() -> int:
            return rng.choice([s for s in self.servers if s.running] or self.servers).port

        return port

    @property
    def everybody(self) -> list[Workers]:
        """Every process of workers."""
        return [*self.workers, self.herd, self.stranger]

    @property
    def _injected(self) -> float:
        """The part of the faults that have happened."""
        return self.done.total() / self.said.faults if self.said.faults else 1.0

    async def run(self) -> None:
        """Starts, storms, and returns when it is quiet or stuck."""
        for server in self.servers:
            await server.start()
        for workers in self.everybody:
            await workers.link.start()
        people = asyncio.create_task(self._keep_people())
        keeper = asyncio.create_task(self._keep_workers())
        try:
            await self._inject_all()
            await self._end_faults()
            ended = time.monotonic()
            await self._quiet(people)
            self._say("quiet after", ended)
        finally:
            for task in (people, keeper):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def _inject_all(self) -> None:
        """Injects the faults, some at once, in step with the trials."""
        waiting = deck(self.said.faults, self.kinds, self.rng)
        gate = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            while waiting and not self.people.open:  # until the first study is there
                await asyncio.sleep(0.1)
            for number, kind in enumerate(waiting):
                await asyncio.sleep(self.rng.expovariate(1 / GAP))
                while self.people.done / self.said.trials + AHEAD < number / len(waiting):
                    await asyncio.sleep(0.1)
                await gate.acquire()
                rng = random.Random(f"{self.said.seed} fault {number}")
                group.create_task(self._inject(kind, rng, gate))

    async def _inject(self, kind: str, rng: random.Random, gate: asyncio.Semaphore) -> None:
        """Injects one fault; one that comes to nothing is tried again, then gives way to others."""
        try:
            for tried in range(1, DROPPED + 1):
                begun = time.monotonic()
                happened = await FAULTS[kind].inject(self, rng)
                self._say(f"{kind} {'took' if happened else 'came to nothing in'}", begun)
                if happened:
                    self.done[kind] += 1
                    return
                await asyncio.sleep(GAP)
                late = self.people.unopened <= 0  # what has been there gives way at once
                if tried >= TRIES or (late and self.done[kind]):
                    (kind,) = rng.choices([*self.kinds], [f.weight for f in self.kinds.values()])
            self.surprises.append(f"no fault could be injected after {kind}")
        finally:
            gate.release()

    def _say(self, what: str, since: float) -> None:
        if self.said.verbose:
            now = time.monotonic()
            trials = f"{self.people.done} of {self.said.trials} trials"
            sys.stderr.write(f"{now - self.begun:6.1f} {what} {now - since:.1f} s; {trials}\n")

    async def _keep_people(self) -> None:
        """People open studies in step with the faults, look at them, and meddle."""
        rng = random.Random(f"{self.said.seed} pace")
        while True:
            await self.people.look()
            part = self._injected + AHEAD
            opened = 1 - self.people.unopened / self.said.trials
            wanted = self.people.unopened > 0 and opened < part
            if wanted and self.people.room < PROCESSES * PER_PROCESS:
                await self.people.open_study()
            elif rng.random() < 0.25 and self._injected < 1:
                await self.people.meddle()
            await asyncio.sleep(0.3)

    async def _keep_workers(self) -> None:
        """Starts processes of workers that have ended, unless somebody holds them."""
        while True:
            for workers in self.workers:
                if not workers.lock.locked() and not workers.running:
                    workers.start()
            for server in self.servers:
                if not server.lock.locked() and not server.running:
                    async with server.lock:
                        server.reap()
                        await server.start()
            await asyncio.sleep(0.1)

    async def _end_faults(self) -> None:
        """Nothing is broken any more."""
        self.network.down = False
        for workers in self.everybody:
            workers.link.heal()
        for server in self.servers:
            server.shift_clock(0.0)

    async def _quiet(self, people: asyncio.Task[None]) -> None:
        """Returns when every trial was opened and every study has ended, or nothing changes."""
        seen, since = self.people.seen, time.monotonic()
        while self.people.open or self.people.unopened > 0:
            if people.done():
                people.result()
            await asyncio.sleep(0.2)
            if self.people.seen != seen:
                seen, since = self.people.seen, time.monotonic()
            if time.monotonic() - since > QUIET_SECONDS:
                return

    async def take_copy(self) -> None:
        """Freezes the server and copies the SQLite file; the checker looks into it."""
        assert isinstance(self.database, SqliteFile)
        server, target = self.servers[0], self.folder / f"copy-{len(self.copies)}"
        server.freeze()
        at = time.monotonic()
        await asyncio.to_thread(self.database.copy, target)
        server.thaw()
        found = await asyncio.to_thread(rows.look_into, target)
        self.copies.append(checker.Copy(at, *found))
        shutil.rmtree(target)

    def stop(self) -> None:
        """Ends every process but the database's."""
        for workers in self.everybody:
            workers.kill()
            workers.link.stop()
            if "Traceback" in (text := workers.log.read_text() if workers.log.exists() else ""):
                self.surprises.append(f"{workers.name} broke: {text[-1_500:]}")
        for server in self.servers:
            if status := server.stop():
                self.surprises.append(f"the server ended with {status}: {server.output[-1_500:]}")
            self.surprises += server.surprises


async def storm(said: argparse.Namespace, folder: Path) -> int:
    """Runs one storm; returns the exit status."""
    running = Storm(said, folder)
    try:
        await running.run()
    finally:
        running.stop()
    try:
        found = rows.read(running.database.url)
        found.differences += rows.reconcile(running.database.url, folder)
    finally:
        running.database.stop()
    calls, away = read(folder / "history")
    known = checker.Known(calls, away, found, running.copies, said.trials)
    return _tell(running, known, checker.check(known))


def _tell(storm: Storm, known: checker.Known, violations: list[checker.Violation]) -> int:
    """Prints what was found, the one line last; returns the exit status."""
    for line in [*(f"surprise: {line}" for line in storm.surprises), *violations[:SHOWN]]:
        sys.stdout.write(f"{line}\n")
    bad = bool(violations or storm.surprises)
    if bad:
        path = storm.folder / "shortest.jsonl"
        calls = checker.shortest(known, violations)
        write(path, calls)
        where = f"{len(calls)} calls in {path}, everything in {storm.folder}"
        sys.stdout.write(f"seed {storm.said.seed}: {where}\n")
    sys.stdout.write(f"promoted from a rung where they waited: {_promoted(known)} trials\n")
    kinds = " ".join(f"{kind}:{storm.done[kind]}" for kind in FAULTS if storm.done[kind])
    sys.stdout.write(
        f"{checker.counts(violations)} trials={len(known.rows.trials)} "
        f"faults={storm.done.total()} ({kinds}) seconds={time.monotonic() - storm.begun:.0f}\n"
    )
    return int(bad)


def _promoted(known: checker.Known) -> int:
    """Returns how many trials asha paused and later had go on from their checkpoints."""
    found = known.rows
    paused = {
        key
        for key, events in found.events.items()
        if [event["kind"] for event in events].count("paused") > 0
    }
    return sum(
        trial["promoted_step"] > 0 and trial["attempt"] > 1
        for trial in found.trials
        if (trial["study_id"], trial["number"]) in paused
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; its folder stays where something was found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--faults", type=int, default=60)
    parser.add_argument("--db", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--servers", type=int, default=1, help="more than one on PostgreSQL only")
    parser.add_argument("--pace", type=float, default=0.2, help="mean time of a step [s]")
    parser.add_argument("--kinds", nargs="*", choices=FAULTS, default=(), help="these faults only")
    parser.add_argument("--verbose", action="store_true", help="say each fault as it ends")
    parser.add_argument("--keep", action="store_true", help="keep the folder")
    said = parser.parse_args(arguments)
    if said.servers > 1 and said.db == "sqlite":
        parser.error("SQLite suits one server")
    folder = Path(tempfile.mkdtemp(prefix=f"lmtune-storm-{said.seed}-"))
    status = asyncio.run(storm(said, folder))
    if status == 0 and not said.keep:
        shutil.rmtree(folder)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
