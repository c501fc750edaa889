"""Everybody at once: workers, people and sweeps in threads, on two servers of one database."""

from __future__ import annotations

import random
import threading
from collections import Counter

from studies.errors import Conflict
from studies.trial import TERMINAL, Decision
from tests.harness.process import PATIENCE
from tests.service.world import LEASE, Held, World

TRIALS = 12
OUTCOMES = ["ok"] * 6 + ["preempted", "error", "diverged"]


def train(held: Held, draw: random.Random) -> None:
    """One attempt, as it may go; may raise Conflict once somebody else has the trial."""
    step = held.grant.resume.step if held.grant.resume else 0
    outcome = draw.choice(OUTCOMES)
    while step < held.grant.max_step:
        step += 10
        answer = held.report((step, draw.random()))
        if draw.random() < 0.5:
            held.checkpoint(step)
        if answer.decision is Decision.PAUSE:
            held.finish("paused", step)
            return
        if answer.decision is not Decision.CONTINUE:
            held.finish("pruned", step)
            return
        held.heartbeat(step)
        if outcome != "ok":
            break
    held.finish(outcome, step)


class Crowd:
    """Threads over worlds that share a database, until their studies have ended."""

    def __init__(self, *worlds: World) -> None:
        self.worlds = worlds
        self.over = threading.Event()
        self.errors: list[BaseException] = []
        self.threads: list[threading.Thread] = []

    def add(self, what, *arguments) -> None:
        def run() -> None:
            try:
                while not self.over.is_set():
                    what(*arguments)
            except BaseException as error:
                self.errors.append(error)
                self.over.set()

        self.threads.append(threading.Thread(target=run))

    def work(self, name: str, seed: int) -> None:
        world, draw = self.worlds[seed % len(self.worlds)], random.Random(seed)
        worker = world.worker(name)
        held = worker.claim()
        if held is None:
            self.over.wait(0.01)
            return
        try:
            train(held, draw)
        except Conflict:
            return

    def sweep(self) -> None:
        world = self.worlds[0]
        world.advance(LEASE * 0.3)
        world.sweep()
        ended = {row.state for row in world.rows("studies")} == {"ENDED"}
        if ended:
            self.over.set()

    def steer(self, draw: random.Random) -> None:
        world, name = self.worlds[-1], draw.choice(["a", "b"])
        action = draw.choice(["pause", "resume", "resume", "enqueue"])
        try:
            getattr(world, action)(name)
        except Conflict:
            self.over.wait(0.02)
        if action == "pause":
            self.over.wait(0.02)
            try:
                world.resume(name)
            except Conflict:
                return

    def run(self, seconds: float) -> None:
        for thread in self.threads:
            thread.start()
        finished = self.over.wait(seconds)
        self.over.set()
        for thread in self.threads:
            thread.join()
        if self.errors:
            raise self.errors[0]
        assert finished, {row.name: row.state for row in self.worlds[0].rows("studies")}


def test_everybody_at_once(world: World) -> None:
    for name in ("a", "b"):
        scheduler = {"kind": "asha", "min_steps": 10, "reduction_factor": 2}
        world.open(name, budget={"trials": TRIALS}, scheduler=scheduler)
    crowd = Crowd(world, world.restarted())
    for number in range(4):
        crowd.add(crowd.work, f"w{number}", number)
    crowd.add(crowd.sweep)
    crowd.add(crowd.steer, random.Random(0))
    crowd.run(60 * PATIENCE)

    trials = world.rows("trials")
    assert list(Counter(row.study_id for row in trials).values()) == [TRIALS, TRIALS]
    assert {row.state for row in trials} <= TERMINAL - {"CANCELLED"}
    attempts = world.rows("attempts")
    for row in trials:
        mine = [(each.attempt, each.outcome) for each in attempts if each.trial_id == row.id]
        assert [number for number, _ in mine] == list(range(1, row.attempt + 1))
        assert None not in [outcome for _, outcome in mine]
    visible = Counter(
        (row.trial_id, row.step) for row in world.rows("reports") if not row.superseded
    )
    assert set(visible.values()) == {1}
    assert world.differences() == []
