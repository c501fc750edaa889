"""The state machine of tests/service/test_machine.py: what may happen, and in what order."""

from __future__ import annotations

from functools import partial
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
)

from service.dispatch import sweep
from service.launcher.base import Lost
from studies.trial import Outcome
from tests.service.calls import Calls, Claim, Do
from tests.service.faults import Wall
from tests.service.model import HALF, RUNGS, STALL, stealable
from tests.service.world import LEASE, Held, World

VALUES = st.sampled_from([0.5, 1.0, 1.0, 2.0, 3.0, float("nan"), float("inf"), float("-inf")])
BATCH = st.lists(VALUES, min_size=1, max_size=3)
OUTCOMES = st.sampled_from([*[Outcome.OK] * 4, *Outcome])
FATES = st.sampled_from([*["arrives"] * 6, "twice", "late", "crashes"])
PICK = st.integers(0, 1 << 16)  # which of some; of attempts, 0 is the newest
BAD_REPORTS = st.sampled_from(["again", "again", "other", "back", "beyond", "mixed"])
GRID = {"sampler": {"kind": "grid"}, "search": {"learning_rate": {"choice": [0.1, 0.2, 0.3]}}}
PROMOTE = {"kind": "asha", "mode": "promote", "min_steps": RUNGS[0], "reduction_factor": HALF}
STUDIES = st.builds(
    lambda sampler, scheduler, trials, limit: {
        **sampler,
        "scheduler": scheduler,
        "budget": {"trials": trials, **limit},
    },
    st.sampled_from(
        [{"sampler": {"kind": "random"}}, {"sampler": {"kind": "tpe", "startup_trials": 2}}, GRID]
    ),
    st.sampled_from(
        [
            {"kind": "none"},
            {"kind": "asha", "min_steps": 10, "reduction_factor": 2},
            *[PROMOTE] * 2,
            {"kind": "median", "min_steps": 10, "startup_trials": 1},
        ]
    ),
    st.integers(2, 6),
    st.sampled_from([{}, {}, {}, {"wall_time": "30s"}]),
)


class Machine(Calls, RuleBasedStateMachine):
    """Two servers on one database, three workers, and everybody who calls them."""

    def __init__(self, world: World) -> None:
        RuleBasedStateMachine.__init__(self)
        Calls.__init__(self, world)
        self.servers = [world, world.restarted()]
        self.wall = Wall(world)
        self.names, self.workers = list("abc"), [world.worker(name) for name in "abc"]
        self.unheard: list[Claim] = []
        self.late: list[Do] = []
        self.dying: list[str] = []
        self.calls = 0
        self.sound = True  # until something is wrong

    # ---------------------------------------------------------------- how a call arrives

    def send(self, do: Do, fate: str, pick: int = 0) -> None:
        if fate == "late":
            self.late.append(do)
            return
        self.arrive(do, pick % 24 if fate == "crashes" else None)
        if fate == "twice":
            self.seen["twice"] += 1
            self.arrive(do)

    def arrive(self, do: Do, crash_at: int | None = None) -> None:
        """Lets a server do it; then its rows are looked at."""
        self.calls += 1
        server = self.servers[self.calls // 2 % 2]
        self.sound, self.may_move, self.may_create = False, set(), False
        do(server) if crash_at is None else self.crashing(do, server, crash_at)
        self.model.look(self.world, self.may_move, self.may_create)
        self.sound = True

    def teardown(self) -> None:
        try:
            if self.sound:
                self.be_quiet()
        finally:
            self.wall.stop()
            self.world.close()

    # ---------------------------------------------------------------- workers

    def pick(self, which: int) -> Held:
        """Any attempt ever granted, the later ones more often."""
        back = (which & -which).bit_length() if which else 1
        return self.held[-min(back, len(self.held))]

    @rule(who=PICK, fate=FATES, lost=st.booleans(), pick=PICK)
    def claim(self, who: int, fate: str, lost: bool, pick: int) -> None:
        worker = self.workers[who % 3]
        worker.seq += 1
        claim = Claim(worker, worker.seq)
        if lost or fate in ("late", "crashes"):
            self.unheard.append(claim)
        self.send(partial(self.claim_at, claim), fate, pick)

    @precondition(lambda self: self.unheard)
    @rule(which=PICK, fate=FATES, pick=PICK)
    def claim_again(self, which: int, fate: str, pick: int) -> None:
        self.seen["claimed again"] += 1
        self.send(partial(self.claim_at, self.unheard[-1 - which % len(self.unheard)]), fate, pick)

    def train(self, which: int, fate: str, values: list[float], pick: int) -> None:
        """A worker that has a trial reports, checkpoints or, at its end, finishes."""
        live = [held for held in self.held if self.model.holds(held)]
        if not live:
            self.claim(which, fate, False, pick)
            return
        held = live[which % len(live)]
        last = self.model.trial(held).last
        if self.model.desired(held).desired == "pause" and pick % 2:
            self.send(partial(self.finish_at, held, Outcome.PAUSED, last), fate, pick)
        elif last == held.grant.max_step:
            self.send(partial(self.finish_at, held, Outcome.OK, last), fate, pick)
        elif last and pick % 3 == 0:
            self.send(partial(self.checkpoint_at, held, last, True), fate, pick)
        else:
            steps = [min(last + 10 * n, held.grant.max_step) for n in range(1, 1 + len(values))]
            points = [*dict(zip(steps, values, strict=True)).items()]
            self.send(partial(self.report_at, held, points), fate, pick)

    # Thrice, so that there is something for all the others to disturb.
    train_one = rule(which=PICK, fate=FATES, values=BATCH, pick=PICK)(train)
    train_another = rule(which=PICK, fate=FATES, values=BATCH, pick=PICK)(train)
    train_a_third = rule(which=PICK, fate=FATES, values=BATCH, pick=PICK)(train)

    @precondition(lambda self: self.held)
    @rule(which=PICK, fate=FATES, wrong=BAD_REPORTS, value=VALUES, pick=PICK)
    def report_oddly(self, which: int, fate: str, wrong: str, value: float, pick: int) -> None:
        held, told = self.pick(which), [held for held in self.held if self.model.stored(held)]
        if told and wrong in ("again", "other"):
            held = told[-1 - which % len(told)]
        stored, last = self.model.stored(held), self.model.trial(held).last
        points = {
            "again": stored[pick % 3 :] if stored else [],
            "other": [(stored[-1][0], 7.0)] if stored else [],
            "back": [(last - 5, value)] if last > 5 else [],
            "beyond": [(held.grant.max_step + 10, value)],
            "mixed": [*stored, (last + 5, value), (last + 3, value)],
        }[wrong]
        if points:
            self.seen[wrong] += 1
            self.send(partial(self.report_at, held, points), fate, pick)

    @precondition(lambda self: self.held)
    @rule(which=PICK, fate=FATES, step=st.sampled_from([0, 7, 15, None]), pick=PICK)
    def heartbeat(self, which: int, fate: str, step: int | None, pick: int) -> None:
        held = self.pick(which)
        beat = (
            partial(self.guess_at, held) if step is None else partial(self.heartbeat_at, held, step)
        )
        self.send(beat, fate if step is not None else "arrives", pick)

    @precondition(lambda self: self.held)
    @rule(which=PICK, fate=FATES, uploads=st.booleans(), pick=PICK)
    def checkpoint(self, which: int, fate: str, uploads: bool, pick: int) -> None:
        held = self.pick(which)
        step = self.model.trial(held).last
        if step:
            self.send(partial(self.checkpoint_at, held, step, uploads), fate, pick)

    @precondition(lambda self: self.held)
    @rule(which=PICK, fate=FATES, pick=PICK)
    def resume(self, which: int, fate: str, pick: int) -> None:
        """The checkpoint cannot be used: from one before it, or from the start."""
        held = self.pick(which)
        given = held.grant.resume.step if held.grant.resume else 0
        before = [step for step, _ in self.model.trial(held).pointers if step < given]
        step = max(before, default=None) if pick % 2 else None
        self.send(partial(self.resume_at, held, step), fate, pick)

    @precondition(lambda self: self.held)
    @rule(which=PICK, fate=FATES, outcome=OUTCOMES, pick=PICK)
    def finish(self, which: int, fate: str, outcome: Outcome, pick: int) -> None:
        held = self.pick(which)
        step = self.model.trial(held).last if pick % 8 else 0
        self.send(partial(self.finish_at, held, outcome, step), fate, pick)

    @precondition(lambda self: self.late)
    @rule(which=PICK)
    def arrives_late(self, which: int) -> None:
        self.seen["late"] += 1
        self.arrive(self.late.pop(which % len(self.late)))

    # ---------------------------------------------------------------- people

    @initialize(parts=STUDIES)
    def open_first(self, parts: dict[str, Any]) -> None:
        self.open(parts)

    @precondition(lambda self: len(self.model.rows.studies) < 3)
    @rule(parts=STUDIES)
    def open(self, parts: dict[str, Any]) -> None:
        name = f"s{len(self.model.rows.studies)}"
        self.arrive(lambda server: server.open(name, **parts))

    @rule(
        which=PICK,
        action=st.sampled_from(
            ["pause", "pause", "resume", "resume", "resume", "enqueue", "cancel", "stop"]
        ),
        fate=FATES,
        pick=PICK,
    )
    def steer(self, which: int, action: str, fate: str, pick: int) -> None:
        ids = sorted(self.model.rows.trials)
        if action == "cancel":
            if ids:
                self.send(partial(self.cancel_at, ids[-1 - which % len(ids)]), fate, pick)
        elif action != "stop" or pick % 4 == 0:
            name = f"s{which % len(self.model.rows.studies)}"
            self.send(partial(self.steer_at, name, action), fate, pick)

    # ---------------------------------------------------------------- time and accidents

    @rule(seconds=st.sampled_from([0.5, 1.0, 1.0, 7.0, 86_400.0, -86_400.0, -0.5]))
    def tick(self, seconds: float) -> None:
        """The ticker of a server moves the lease clock, whatever the wall clock does."""
        self.wall.now += seconds
        self.arrive(self.tick_at)

    def tick_at(self, server: World) -> None:
        before = self.model.t
        server.db.write(partial(sweep.tick, ctx=server.ctx))
        ((_, self.model.t, wall),) = self.world.rows("clock")
        gap = self.wall.now - self.wall.ticked
        assert self.model.t == before + min(max(gap, 0.0), 1.0), "F19: the lease clock jumped"
        assert wall == (self.wall.ticked if -5 <= gap < 0 else self.wall.now)
        self.wall.ticked = wall
        if abs(gap) > 5:
            self.seen["jumped"] += 1
            self.model.lifted(before)

    @rule(leases=st.sampled_from([0.25, 0.5, 1.1, 1.1, 16.0]), then=PICK)
    def time_passes(self, leases: float, then: int) -> None:
        self.world.advance(LEASE * leases)
        self.model.t += LEASE * leases
        if then % 3 == 0:
            self.arrive(self.sweep_at)
        elif then % 3 == 1:
            self.claim(then // 3, "arrives", False, 0)

    def sweep_at(self, server: World) -> None:
        t, rows = self.model.t, self.model.rows
        held = {key: trial for key, trial in self.model.trials.items() if trial.held}
        overdue = {key for key, trial in held.items() if trial.lease < t}
        hung = {key for key, trial in held.items() if t - trial.progress[1] > STALL}
        self.may_move = overdue | hung
        for study in rows.studies.values():
            if "wall_time" in study.spec["budget"]:
                self.may_move |= rows.of(study, "WAITING", "PAUSED")
        server.sweep()
        left = {row.id for row in self.world.rows("trials", state="RUNNING")}
        stuck = {key for key in overdue & left if not stealable(rows.trials[key], t)}
        assert not stuck, "nobody can take it, and it does not end"
        self.seen["swept"] += bool((overdue | hung) - left)

    @rule(who=PICK, kind=st.sampled_from(["dies", "leaves", "restart", *["collect"] * 4]))
    def accident(self, who: int, kind: str) -> None:
        worker = self.workers[who % 3]
        if kind == "restart":
            self.servers[who % 2].forgetful()
        elif kind == "collect":
            self.arrive(self.collect_at)
        elif kind == "leaves":
            self.arrive(lambda s: s.db.write(lambda tx: sweep.worker_gone(tx, worker.id)))
            self.gone(worker)
        else:
            self.arrive(partial(self.dies_at, worker, Lost(self.names[who % 3], "it ended")))
            self.top[worker.id] = 2**31 - 1  # an orphan that lives on claims nothing more
            self.names[who % 3] = again = f"{self.names[who % 3]}'"
            self.workers[who % 3] = self.world.worker(again)

    def dies_at(self, worker: Any, lost: Lost, server: World) -> None:
        rows = self.model.rows.trials.values()
        self.may_move = {r.id for r in rows if r.state == "RUNNING" and r.worker_id == worker.id}
        server.db.write(partial(sweep.worker_lost, ctx=server.ctx, lost=lost))
        assert not self.world.rows("trials", state="RUNNING", worker_id=worker.id)

    def gone(self, worker: Any) -> None:
        """Whatever it had claimed is stale; its next life claims on."""
        self.top[worker.id] += 1
        self.answers.setdefault((worker.id, self.top[worker.id]), None)
        worker.seq = max(worker.seq, self.top[worker.id])

    def collect_at(self, server: World) -> None:
        """What was found dying in one transaction is removed in another."""
        remove = self.model.files.discard
        for digest in self.dying:
            server.db.write(partial(sweep.collect_blob, sha256=digest, remove=remove))
        self.wall.now += 16 * LEASE
        self.dying = server.db.write(partial(sweep.mark_unused_blobs, ctx=server.ctx))
        self.seen["dying"] += len(self.dying)

    # ---------------------------------------------------------------- what must hold at the end

    def be_quiet(self) -> None:
        """All faults end; every trial is driven to its end, and the studies end."""
        for do in self.late:
            self.arrive(do)
        for study in self.world.rows("studies"):
            if study.state == "PAUSED":
                self.world.resume(study.name)
        worker = self.world.worker("quiet")
        for _ in range(100):
            held = worker.claim()
            if held is not None:
                held.train(1.0)
                continue
            self.world.advance(LEASE * 1.1)
            self.world.sweep()
            if {row.state for row in self.world.rows("studies")} == {"ENDED"}:
                break
        self.model.check_quiet(self.world)
