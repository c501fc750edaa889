"""A server's database and its use cases without HTTP, a worker to call them, and what they left.

Time is a row here too: `advance` moves the lease clock, nothing sleeps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.storages import RDBStorage

from service.dispatch import claim, enqueue, plain, report, studies, sweep
from service.dispatch.context import Context, Studies
from service.dispatch.reading import Reading
from service.leases import Clock, LeaseTimes
from service.reconcile import differences
from service.store import blobs, fence, tables, trials, workers
from service.store import studies as study_rows
from service.store.database import Database, Row
from service.store.optuna_rows import open_storage
from studies import wire
from studies.spec import StudySpec, parse_spec
from studies.trial import Decision, TrialState

TIMES = LeaseTimes(1.0)
LEASE = TIMES.granted  # what a write gives [s]


def spec(name: str = "study", **parts: Any) -> StudySpec:
    """A small study of 30 steps, reported every 10; `parts` replace whole sections."""
    document = {
        "name": name,
        "data": {"builtin": "stdlib"},
        "train": {"steps": 30, "evaluate_every": 10},
        "search": {"learning_rate": {"log": [1e-4, 1e-1]}},
        "sampler": {"kind": "random", "seed": 7},
        "budget": {"trials": 8},
    }
    return parse_spec(document | parts)


def items(*points: tuple[int, float]) -> list[wire.ReportItem]:
    return [wire.ReportItem(step=step, metrics={"validation_loss": v}) for step, v in points]


class World:
    """One server's memory over a database; `restarted` is another server on the same one."""

    def __init__(self, database: Database) -> None:
        self.db = database
        self.rings = 0
        self._workers: dict[str, Worker] = {}
        self._closing: list[Callable[[], None]] = []
        self.ctx = Context(database, TIMES, wake=self._ring)
        self.reading = Reading(self.ctx)

    def _ring(self) -> None:
        self.rings += 1

    def restarted(self) -> World:
        return World(self.db)

    def forgetful(self) -> None:
        """Loses what is only in memory, as a restart does."""
        self.ctx = replace(self.ctx, studies=Studies())

    # what people do

    def open(self, name: str = "study", **parts: Any) -> Row:
        wanted = spec(name, **parts)
        return self.db.write(lambda tx: studies.open_study(tx, self.ctx, wanted))

    def pause(self, name: str = "study") -> Row:
        return self.db.write(lambda tx: studies.pause(tx, name))

    def resume(self, name: str = "study") -> Row:
        return self.db.write(lambda tx: studies.resume(tx, self.ctx, name))

    def stop(self, name: str = "study") -> Row:
        return self.db.write(lambda tx: studies.stop(tx, self.ctx, name))

    def enqueue(self, name: str = "study", **params: Any) -> Row:
        return enqueue.enqueue(self.ctx, name, params)

    def cancel(self, number: int, name: str = "study") -> Row:
        return self.db.write(lambda tx: enqueue.cancel(tx, self.ctx, name, number))

    def worker(self, name: str = "worker") -> Worker:
        body = wire.RegisterBody(
            name=name, host="box", pid=1, device="cpu", protocol=wire.PROTOCOL, code_hash="c"
        )
        known = self.db.write(lambda tx: claim.register(tx, self.ctx, body))
        return self._workers.setdefault(name, Worker(self, known.worker_id))

    def upload(self, digest: str, age: float = 0.0, kind: str = "checkpoint") -> str:
        """The row of a blob, made `age` seconds ago."""

        def work(tx: Any) -> None:
            tx.now -= age
            blobs.add(tx, sha256=digest, kind=kind, name="", bytes=1)

        self.db.write(work)
        return digest

    # what time does

    def advance(self, seconds: float) -> None:
        """Moves the lease clock as ticks of a server would."""

        def work(tx: Any) -> None:
            clock = workers.read_clock(tx.conn)
            workers.move_clock(tx, Clock(clock.t + seconds, clock.wall))

        self.db.write(work)

    def sweep(self) -> None:
        sweep.sweep(self.ctx)

    # what is there afterwards

    def study(self, name: str = "study") -> Row:
        return self.db.read(lambda conn: study_rows.by_name(conn, name))

    def trial(self, number: int = 0, name: str = "study") -> Row:
        study = self.study(name)
        return self.db.read(lambda conn: trials.by_number(conn, study.id, number))

    def states(self, name: str = "study") -> list[str]:
        return [row.state for row in self.rows("trials", study_id=self.study(name).id)]

    def counts(self, name: str = "study") -> dict[TrialState, int]:
        return self.db.read(lambda conn: study_rows.counts(conn, self.study(name).id))

    def rows(self, table: str, **where: Any) -> list[Row]:
        found = tables.metadata.tables[f"lmtune_{table}"]
        statement = sa.select(found).order_by(*found.primary_key.columns)
        for column, value in where.items():
            statement = statement.where(found.c[column] == value)
        return list(self.db.read(lambda conn: conn.execute(statement).all()))

    def change(self, table: str, where: dict[str, Any], **values: Any) -> None:
        """Changes rows of ours behind the server's back."""
        self._change(tables.metadata.tables[f"lmtune_{table}"], where, values)

    def change_theirs(self, table: str, where: dict[str, Any], **values: Any) -> None:
        """Changes rows of a table that is not ours: Optuna's, alembic's."""
        self._change(sa.table(table, *map(sa.column, [*where, *values])), where, values)

    def _change(self, table: Any, where: dict[str, Any], values: dict[str, Any]) -> None:
        conditions = [table.c[column] == value for column, value in where.items()]
        statement = sa.update(table).where(*conditions).values(**values)
        self.db.write(lambda tx: tx.conn.execute(statement).rowcount)

    def optuna(self, name: str = "study") -> optuna.Study:
        """The study as plain Optuna opens it, anew."""
        return optuna.load_study(study_name=name, storage=self.storage())

    def storage(self) -> RDBStorage:
        storage = open_storage(self.db.url)
        self._closing.append(storage.engine.dispose)
        return storage

    def close(self) -> None:
        self.db.close()
        for close in self._closing:
            close()

    @property
    def url(self) -> str:
        return self.db.url.render_as_string(hide_password=False)

    def differences(self) -> list[str]:
        return differences(self.db)


@dataclass
class Worker:
    """A worker that claims; what it holds it writes to through `Held`."""

    world: World
    id: int
    seq: int = 0

    def claim(self) -> Held | None:
        self.seq += 1
        return self.claim_as(self.seq)

    def claim_as(
        self, seq: int, token: str | None = None, world: World | None = None
    ) -> Held | None:
        """The claim of this number, again or for the first time."""
        world = world or self.world
        body = self.body(seq, token)
        claimed = world.db.write(lambda tx: claim.first_claim(tx, world.ctx, self.id, body))
        while claimed.ask is not None:
            claimed = claim.suggested_claim(world.ctx, self.id, body, claimed.ask)
        grant = claimed.grant
        if claimed.open and grant is None:
            grant = world.db.write(lambda tx: claim.close_claim(tx, world.ctx, self.id, body))
        return grant and Held(world, grant, body.lease_token)

    def begin_waiting(self, seq: int) -> None:
        """A claim that finds nothing and stays open."""
        body, ctx = self.body(seq), self.world.ctx
        claimed = self.world.db.write(lambda tx: claim.first_claim(tx, ctx, self.id, body))
        assert claimed == claim.Claimed()

    def close(self, seq: int) -> wire.Grant | None:
        """The claim of this number is answered with what it has, or with nothing."""
        body, ctx = self.body(seq), self.world.ctx
        return self.world.db.write(lambda tx: claim.close_claim(tx, ctx, self.id, body))

    def wait_as(self, seq: int) -> Held | None:
        """What a claim of this number that waits is given when it looks again."""
        body, ctx = self.body(seq), self.world.ctx
        claimed = self.world.db.write(lambda tx: claim.waiting_claim(tx, ctx, self.id, body))
        while claimed.ask is not None:
            claimed = claim.suggested_claim(ctx, self.id, body, claimed.ask)
        return claimed.grant and Held(self.world, claimed.grant, body.lease_token)

    def body(self, seq: int, token: str | None = None) -> wire.ClaimBody:
        drawn = hashlib.md5(f"{self.id} {seq}".encode(), usedforsecurity=False).hexdigest()
        return wire.ClaimBody(
            seq=seq, lease_token=token or drawn, protocol=wire.PROTOCOL, code_hash="c"
        )

    def run(self, value: float = 1.0) -> Held:
        """Claims a trial and trains it to its end."""
        held = self.claim()
        held.train(value)
        return held


@dataclass
class Held:
    """An attempt as its worker sees it; every call may raise as the server refuses."""

    world: World
    grant: wire.Grant
    token: str

    @property
    def key(self) -> fence.AttemptKey:
        grant = self.grant
        return fence.AttemptKey(grant.trial_id, grant.attempt, claim.hash_token(self.token))

    def _call(self, use_case: Any, body: Any, together: Any = lambda *_: None) -> Any:
        return self.begin(use_case, body, together).result()

    def begin(self, use_case: Any, body: Any, together: Any) -> Future[Any]:
        """Hands a write over as the routes do; `together`: how it is done for many at once."""
        world, key = self.world, self.key
        many = together(world.ctx, key, body)
        return world.db.submit(lambda tx: use_case(tx, world.ctx, key, body), many)

    def heartbeat(self, step: int = 0, **environment: Any) -> Decision:
        body = wire.HeartbeatBody(step=step, environment=environment or None)
        return self._call(report.heartbeat, body, plain.beating)

    def report(self, *points: tuple[int, float]) -> wire.ReportAnswer:
        return self.send(items(*points))

    def send(self, reports: list[wire.ReportItem]) -> wire.ReportAnswer:
        return self._call(report.record_report, wire.ReportBody(items=reports), plain.reporting)

    def checkpoint(self, step: int, last: int | None = None, content: str = "") -> Decision:
        """Uploads a blob (its row) and points at it."""
        digest = hashlib.sha256((content or f"{self.grant.trial_id} {step}").encode()).hexdigest()
        self.world.db.write(
            lambda tx: blobs.add(tx, sha256=digest, kind="checkpoint", name="", bytes=1)
        )
        return self.point(step, digest, step if last is None else last)

    def point(self, step: int, digest: str, last: int) -> Decision:
        body = wire.CheckpointBody(
            step=step, sha256=digest, bytes=1, code_hash="c", last_report_step=last
        )
        return self._call(report.checkpoint, body)

    def resume(self, step: int | None) -> Decision:
        return self._call(report.resume, wire.ResumeBody(step=step))

    def finish(self, outcome: str = "ok", step: int = 0, reason: str | None = None) -> str:
        body = wire.FinishBody(outcome=outcome, final_step=step, reason=reason)
        return self._call(report.finish, body).state

    def log(self, text: str) -> None:
        self._call(report.log, text)

    def train(self, value: float = 1.0) -> str:
        """Reports from where it resumes to the end, as the server decides; then finishes."""
        step = self.grant.resume.step if self.grant.resume else 0
        while step < self.grant.max_step:
            step = min(step + 10, self.grant.max_step)
            decision = self.report((step, value)).decision
            if decision is Decision.STOP:
                return self.finish("pruned", step)
            if decision is Decision.PAUSE:
                self.checkpoint(step)
                return self.finish("paused", step)
        return self.finish("ok", step)
