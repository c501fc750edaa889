"""Storms: workers, people, time and restarts in any order, and what must hold after each."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from functools import partial

import pytest

from service.dispatch import sweep
from service.launcher.base import Lost
from studies import errors
from studies.trial import (
    STUDY_TRANSITIONS,
    TERMINAL,
    TRANSITIONS,
    Decision,
    Outcome,
    StudyState,
    TrialState,
)
from tests.service.world import LEASE, Held, World

OUTCOMES = [Outcome.OK] * 4 + [outcome for outcome in Outcome if outcome is not Outcome.LOST]
SCHEDULERS = [
    {"kind": "none"},
    {"kind": "asha", "min_steps": 10, "reduction_factor": 2},
    {"kind": "median", "min_steps": 10, "startup_trials": 1},
]
VALUES = [0.5, 1.0, 1.0, 2.0, 2.0, 3.0, float("nan"), float("inf")]
PEOPLE = ["pause"] * 3 + ["resume"] * 8 + ["enqueue"] * 4 + ["stop"]
WEIGHTS = {  # of what happens next
    "claim": 6,
    "claim_again": 1,
    "report": 12,
    "report_again": 3,
    "checkpoint": 4,
    "heartbeat": 2,
    "finish": 5,
    "open": 1,
    "act": 2,
    "cancel": 1,
    "time_passes": 3,
    "the_server_restarts": 1,
    "a_worker_dies": 1,
}


class Storm:
    """Some workers on one server's use cases; every attempt ever granted may still write."""

    def __init__(self, world: World, seed: int) -> None:
        self.world, self.draw = world, random.Random(seed)
        self.workers = [world.worker(name) for name in "abc"]
        self.held: list[Held] = []
        self.sent: dict[tuple[int, int], list[tuple[int, float]]] = {}
        self.answers: dict[tuple[int, int, int], Decision] = {}
        self.finished: dict[tuple[int, int], tuple] = {}
        self.over: dict[int, tuple] = {}
        self.studies: list[str] = []
        self.seen: Counter[str] = Counter()  # that the storm was one

    def rage(self, steps: int) -> None:
        self.open()
        names, weights = list(WEIGHTS), list(WEIGHTS.values())
        for name in self.draw.choices(names, weights, k=steps):
            getattr(self, name)()
            self.check()

    def calm_down(self) -> None:
        """Everything is stopped and every lease runs out: the studies end."""
        for name in self.studies:
            self.steer(name, "stop")
        self.world.advance(LEASE * 20)
        self.world.sweep()
        self.check()
        assert {row.state for row in self.world.rows("studies")} == {"ENDED"}
        self.check_audit()

    def stale(self, held: Held) -> bool:
        (row,) = self.world.rows("trials", id=held.grant.trial_id)
        return row.state != "RUNNING" or row.attempt != held.grant.attempt

    def steer(self, name: str, action: str) -> None:
        try:
            getattr(self.world, action)(name)
        except errors.Conflict:
            return

    def any_held(self) -> Held | None:
        """Any attempt ever granted, the later ones more often."""
        back = int(self.draw.expovariate(0.4)) + 1
        return self.held[-min(back, len(self.held))] if self.held else None

    # ---------------------------------------------------------------- workers

    def claim(self) -> None:
        held = self.draw.choice(self.workers).claim()
        if held is not None:
            self.held.append(held)

    def claim_again(self) -> None:
        chosen = self.draw.choice(self.workers)
        if chosen.seq:
            before = Counter(row.trial_id for row in self.world.rows("attempts"))
            chosen.claim_as(chosen.seq)
            assert Counter(row.trial_id for row in self.world.rows("attempts")) == before

    def attempt(self, write) -> bool:
        """True when the write was taken; it is refused just when the attempt is over."""
        held = self.any_held()
        if held is None:
            return False
        stale = self.stale(held)
        self.seen["stale" if stale else "fresh"] += 1
        try:
            if write(held) is False:
                return False
        except errors.Conflict:
            assert stale
            return False
        assert not stale
        return True

    def report(self) -> None:
        self.attempt(self._report)

    def _report(self, held: Held) -> bool | None:
        key = (held.grant.trial_id, held.grant.attempt)
        sent = self.sent.setdefault(key, [])
        start = held.grant.resume.step if held.grant.resume else 0
        step = (sent[-1][0] if sent else start) + 10
        if step > held.grant.max_step:
            return False
        value = self.draw.choice(VALUES)
        answer = held.report((step, value))
        sent.append((step, value))
        self.answers[*key, step] = answer.decision
        return None

    def report_again(self) -> None:
        self.attempt(self._report_again)

    def _report_again(self, held: Held) -> bool | None:
        key = (held.grant.trial_id, held.grant.attempt)
        if not self.sent.get(key):
            return False
        point = self.draw.choice(self.sent[key])
        answer = held.report(point)
        assert (answer.decision, answer.duplicate) == (self.answers[*key, point[0]], True)
        return None

    def checkpoint(self) -> None:
        self.attempt(self._checkpoint)

    def _checkpoint(self, held: Held) -> bool | None:
        sent = self.sent.get((held.grant.trial_id, held.grant.attempt))
        return held.checkpoint(sent[-1][0]) and None if sent else False

    def heartbeat(self) -> None:
        self.attempt(lambda held: held.heartbeat(1) and None)

    def finish(self) -> None:
        held = self.any_held()
        if held is None:
            return
        key = (held.grant.trial_id, held.grant.attempt)
        sent = self.sent.get(key, [])
        said = (self.draw.choice(OUTCOMES), sent[-1][0] if sent else 0)
        try:
            state = held.finish(*said)
        except (errors.Conflict, errors.InvalidInput):
            return
        self.seen[state] += 1
        assert self.finished.setdefault(key, (*said, state)) == (*said, state)

    # ---------------------------------------------------------------- people, time and accidents

    def open(self) -> None:
        if len(self.studies) < 8:
            self.studies.append(f"s{len(self.studies)}")
            budget = {"trials": self.draw.randint(3, 8)}
            scheduler = self.draw.choice(SCHEDULERS)
            self.world.open(self.studies[-1], scheduler=scheduler, budget=budget)

    def act(self) -> None:
        self.steer(self.draw.choice(self.studies), self.draw.choice(PEOPLE))

    def cancel(self) -> None:
        rows = self.world.rows("trials")
        if not rows:
            return
        row = self.draw.choice(rows)
        name = next(s.name for s in self.world.rows("studies") if s.id == row.study_id)
        try:
            self.world.cancel(row.number, name)
        except errors.Finished:
            assert row.state in TERMINAL

    def time_passes(self) -> None:
        self.world.advance(LEASE * self.draw.choice([0.5, 0.5, 1.1, 20.0]))
        self.world.sweep()

    def the_server_restarts(self) -> None:
        self.world.forgetful()

    def a_worker_dies(self) -> None:
        worker = self.draw.choice("abc")
        lost = Lost(worker, "it ended with -9")
        self.world.db.write(partial(sweep.worker_lost, ctx=self.world.ctx, lost=lost))
        self.world.worker(worker).seq += 1  # a new life would be a new worker; this one goes on

    # ---------------------------------------------------------------- what must hold

    def check(self) -> None:
        assert self.world.differences() == []
        trials = {row.id: row for row in self.world.rows("trials")}
        self.check_attempts(trials)
        self.check_reports(trials)
        for row in trials.values():
            if row.state in TERMINAL:
                assert self.over.setdefault(row.id, tuple(row)) == tuple(row)
        for study in self.world.rows("studies"):
            mine = [row.state for row in trials.values() if row.study_id == study.id]
            slots = len(mine) - mine.count("CANCELLED")
            assert slots <= study.spec["budget"]["trials"]
            if study.state == "ENDED":
                assert set(mine) <= TERMINAL

    def check_attempts(self, trials: dict) -> None:
        numbers: dict[int, list] = {}
        for row in self.world.rows("attempts"):
            numbers.setdefault(row.trial_id, []).append((row.attempt, row.outcome))
        for trial_id, row in trials.items():
            found = numbers.get(trial_id, [])
            assert [number for number, _ in found] == list(range(1, row.attempt + 1))
            live = [number for number, outcome in found if outcome is None]
            assert live == ([row.attempt] if row.state == "RUNNING" else [])

    def check_audit(self) -> None:
        """One event per transition: together they tell every trial's and study's whole life."""
        events = self.world.rows("events")
        for row in self.world.rows("trials"):
            mine = [e for e in events if (e.study_id, e.trial) == (row.study_id, row.number)]
            states = [TrialState(event.kind.upper()) for event in mine]
            assert (states[0], states[-1]) == (TrialState.WAITING, row.state)
            assert all(then in TRANSITIONS[now] for now, then in itertools.pairwise(states))
            granted = [e.detail["attempt"] for e in mine if e.kind == "running"]
            assert granted == list(range(1, row.attempt + 1))
        for study in self.world.rows("studies"):
            kinds = [e.kind for e in events if (e.study_id, e.trial) == (study.id, None)]
            lives = [StudyState(kind.removeprefix("study_").upper()) for kind in kinds]
            assert (lives[0], lives[-1]) == (StudyState.RUNNING, study.state)
            assert all(then in STUDY_TRANSITIONS[now] for now, then in itertools.pairwise(lives))

    def check_reports(self, trials: dict) -> None:
        rows = self.world.rows("reports")
        stored = Counter((row.trial_id, row.attempt, row.step) for row in rows)
        told = {(*key, step) for key, sent in self.sent.items() for step, _ in sent}
        assert set(stored) == told
        assert set(stored.values()) <= {1}
        visible = [(row.trial_id, row.step) for row in rows if not row.superseded]
        assert len(visible) == len(set(visible))
        for trial_id, step in visible:
            if trials[trial_id].state != "COMPLETE":
                assert step <= trials[trial_id].step


LONG = [pytest.param(seed, 400, marks=pytest.mark.slow) for seed in range(100, 112)]


@pytest.mark.parametrize(("seed", "steps"), [(1, 200), (2, 200), *LONG])
def test_whatever_happens_the_rows_agree(small_world: World, seed: int, steps: int) -> None:
    storm = Storm(small_world, seed)
    storm.rage(steps)
    storm.calm_down()
    assert {"stale", "fresh"} <= set(storm.seen)


def test_the_rows_agree_on_either_database(world: World) -> None:
    storm = Storm(world, 4)
    storm.rage(100)
    storm.calm_down()
    assert {"stale", "fresh"} <= set(storm.seen)
