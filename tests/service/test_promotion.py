"""asha that pauses and promotes: who waits at a rung, who goes on, and how a study ends."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.tuning.schedulers import Judged, decide, in_top
from studies.errors import InvalidInput
from studies.parts import Scheduler
from studies.trial import Decision
from tests.service.test_claims import storm
from tests.service.world import LEASE, Held, World, spec

PROMOTE = {"kind": "asha", "mode": "promote", "min_steps": 10, "reduction_factor": 3}
SHORT = {"steps": 20, "evaluate_every": 10}  # one rung, at 10
LONG = {"steps": 100, "evaluate_every": 10}


def opened(world: World, trials: int = 4, factor: int = 2, **parts) -> None:
    scheduler = PROMOTE | {"reduction_factor": factor}
    world.open(scheduler=scheduler, budget={"trials": trials}, **{"train": SHORT} | parts)


def reach(held: Held, step: int, value: float) -> str:
    """Reports a step, and does as it is told."""
    decision = held.report((step, value)).decision
    if decision is Decision.PAUSE:
        held.checkpoint(step)
        assert held.finish("paused", step) == "PAUSED"
    return str(decision)


# ------------------------------------------------------------------ the rule


@given(st.integers(2, 6), st.integers(0, 60), st.integers(0, 60))
def test_as_many_are_in_the_top_as_the_paper_says(factor, reached, better) -> None:
    scheduler = Scheduler(kind="asha", mode="promote", reduction_factor=factor)
    top = sum(in_top(scheduler, reached, rank) for rank in range(reached))
    assert top == math.floor(reached / factor)
    assert not in_top(scheduler, reached, better) or in_top(scheduler, reached + 1, better)


@pytest.mark.parametrize(
    ("value", "others", "decision"),
    [
        (1.0, [], "pause"),  # the best of one is no third of anything
        (1.0, [2.0, 3.0], "continue"),
        (2.0, [1.0, 3.0], "pause"),
        (1.0, [math.nan, 3.0], "continue"),  # who diverges has come there too
        (math.nan, [2.0, 3.0], "pause"),
        (-math.inf, [2.0, 3.0], "pause"),
    ],
)
def test_a_report_at_a_rung(value, others, decision) -> None:
    judged = Judged(10, value, [value], others, 0)
    assert decide(Scheduler.model_validate(PROMOTE), judged) == decision


def test_only_asha_promotes() -> None:
    with pytest.raises(InvalidInput, match=r"scheduler.mode: only asha promotes"):
        spec(scheduler={"kind": "median", "mode": "promote", "min_steps": 10})


# ------------------------------------------------------------------ against a simulation


@dataclass
class Simulation:
    """Asynchronous successive halving as the paper has it, on plain lists: who goes on next."""

    factor: int
    rungs: list[dict[int, float]]  # loss by trial, of all that came to the rung
    gone: list[set[int]] = field(default_factory=list)  # promoted from the rung
    trials: int = 0

    def __post_init__(self) -> None:
        self.gone = [set() for _ in self.rungs]

    def top(self, rung: int) -> list[int]:
        losses = self.rungs[rung]
        return sorted(losses, key=losses.__getitem__)[: len(losses) // self.factor]

    def arrive(self, trial: int, rung: int, loss: float) -> bool:
        """True when the trial goes on at once."""
        self.rungs[rung][trial] = loss
        if trial in self.top(rung):
            self.gone[rung].add(trial)
        return trial in self.gone[rung]

    def job(self, budget: int) -> int | None:
        for rung in reversed(range(len(self.rungs))):
            for trial in self.top(rung):
                if trial not in self.gone[rung]:
                    self.gone[rung].add(trial)
                    return trial
        if self.trials == budget:
            return None
        self.trials += 1
        return self.trials - 1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_claims_go_as_in_a_simulation(world: World, seed, direction) -> None:
    draw, sign = random.Random(seed), 1.0 if direction == "minimize" else -1.0
    steps, budget = (10, 20, 40, 80), 16
    simulated = Simulation(2, [{} for _ in steps])
    opened(world, budget, train=LONG, objective={"direction": direction})
    workers = [world.worker(f"w{i}") for i in range(4)]
    running: dict[int, tuple[Held, int]] = {}
    while True:
        at = draw.randrange(len(workers))
        if at not in running:
            held = workers[at].claim()
            assert (held and held.grant.number) == simulated.job(budget)
            if held is not None:
                running[at] = held, held.grant.resume.step if held.grant.resume else 0
            elif not running:
                break
            continue
        held, step = running[at]
        step, loss = step + 10, draw.random() + 100 / (step + 10)
        told = reach(held, step, sign * loss)
        goes_on = step not in steps or simulated.arrive(held.grant.number, steps.index(step), loss)
        assert told == ("continue" if goes_on else "pause")
        running[at] = held, step
        if step == 100:
            held.finish("ok", step)
        if step == 100 or not goes_on:
            del running[at]
    finals = {row.number for row in world.rows("trials", state="COMPLETE")}
    assert finals == simulated.gone[-1]
    assert world.study().state == "ENDED"
    assert finals
    assert world.counts() == {"COMPLETE": len(finals), "PRUNED": budget - len(finals)}
    assert world.differences() == []


# ------------------------------------------------------------------ at a rung


def test_a_trial_is_promoted_when_others_make_room(world: World) -> None:
    opened(world)
    worker = world.worker()
    first = worker.claim()
    assert reach(first, 10, 1.0) == "pause"
    trial = world.trial()
    assert (trial.state, trial.paused_by, trial.reason) == (
        "PAUSED",
        "scheduler",
        "asha at step 10",
    )
    second = worker.claim()
    assert (second.grant.number, reach(second, 10, 2.0)) == (1, "pause")
    promoted = worker.claim()
    assert (promoted.grant.number, promoted.grant.attempt) == (0, 2)
    assert promoted.grant.resume.step == 10
    assert (world.trial().desired, world.trial().paused_by) == ("run", None)


def test_a_report_sent_again_gets_the_decision_it_got(world: World) -> None:
    opened(world)
    first, second = world.worker("a").claim(), world.worker("b").claim()
    assert first.report((10, 2.0)).decision == "pause"
    assert second.report((10, 1.0)).decision == "continue"
    third = world.worker("c").claim()
    assert third.report((10, 3.0)).decision == "pause"
    again = first.report((10, 2.0)), second.report((10, 1.0))
    assert [(answer.decision, answer.duplicate) for answer in again] == [
        ("pause", True),
        ("continue", True),
    ]


def test_a_trial_on_its_way_to_a_pause_is_not_promoted(world: World) -> None:
    opened(world)
    worker = world.worker()
    first = worker.claim()
    assert first.report((10, 1.0)).decision == "pause"
    reach(worker.claim(), 10, 2.0)
    assert worker.claim().grant.number == 2
    first.finish("paused", 10)
    assert worker.claim().grant.number == 0


def test_the_highest_rung_is_promoted_from_first(world: World) -> None:
    opened(world, trials=6, train=LONG)  # rungs at 10, 20, 40 and 80
    worker = world.worker()
    held = [worker.claim() for _ in range(6)]
    for number, value in ((0, 1.0), (1, 2.0)):
        reach(held[number], 10, value)
    reach(worker.claim(), 20, 1.0)
    for number, value in ((2, 3.0), (3, 4.0)):
        reach(held[number], 10, value)
    reach(worker.claim(), 20, 2.0)
    for number, value in ((4, 9.0), (5, 9.0)):
        reach(held[number], 10, value)
    granted = [worker.claim().grant for _ in range(2)]
    assert [(grant.number, grant.resume.step) for grant in granted] == [(0, 20), (2, 10)]


def test_a_promoted_trial_is_not_paused_there_again(world: World) -> None:
    """Its checkpoint is gone, it starts anew, and comes to the rung again with a worse value."""
    opened(world)
    worker = world.worker()
    reach(worker.claim(), 10, 1.0)
    reach(worker.claim(), 10, 2.0)
    promoted = worker.claim()
    promoted.resume(None)
    assert promoted.report((10, 9.0)).decision == "continue"
    assert promoted.report((20, 9.0)).decision == "continue"
    assert promoted.finish("ok", 20) == "COMPLETE"


def test_a_trial_that_went_on_at_once_is_not_paused_there_later(world: World) -> None:
    opened(world)
    reach(world.worker("a").claim(), 10, 2.0)
    assert world.worker("b").claim().report((10, 1.0)).decision == "continue"
    world.advance(LEASE * 2)
    stolen = world.worker("c").claim()
    assert (stolen.grant.number, stolen.grant.resume) == (1, None)
    assert stolen.report((10, 9.0)).decision == "continue"


def test_a_worker_lost_on_the_way_to_a_pause_leaves_a_paused_trial(world: World) -> None:
    opened(world)
    first = world.worker("a").claim()
    assert first.report((10, 1.0)).decision == "pause"
    world.advance(LEASE * 2)
    world.sweep()
    assert world.trial().state == "PAUSED"
    reach(world.worker("b").claim(), 10, 2.0)
    assert (promoted := world.worker("b").claim()).grant.number == 0
    assert promoted.grant.resume is None  # it had no checkpoint
    assert promoted.report((10, 1.0), (20, 1.0)).decision == "continue"


# ------------------------------------------------------------------ people, and the end


def test_a_pause_of_the_study_leaves_the_schedulers_pauses_alone(world: World) -> None:
    opened(world)
    worker = world.worker()
    waits, runs = worker.claim(), worker.claim()
    reach(waits, 10, 1.0)
    world.pause()
    assert runs.heartbeat(5) == "pause"
    runs.finish("paused", 0)
    assert [row.paused_by for row in world.rows("trials")] == ["scheduler", "study"]
    assert worker.claim() is None
    world.resume()
    assert world.states() == ["PAUSED", "WAITING"]
    again = worker.claim()
    assert (again.grant.number, reach(again, 10, 2.0)) == (1, "pause")
    assert worker.claim().grant.number == 0


def test_a_study_does_not_end_while_a_trial_can_be_promoted(world: World) -> None:
    opened(world, trials=2)
    first, second = world.worker("a").claim(), world.worker("b").claim()
    reach(first, 10, 1.0)
    reach(second, 10, 2.0)
    assert (world.study().state, world.states()) == ("RUNNING", ["PAUSED", "PAUSED"])
    promoted = world.worker("a").claim()
    assert promoted.grant.number == 0
    promoted.report((20, 0.8))
    promoted.finish("ok", 20)
    assert (world.study().state, world.study().reason) == ("ENDED", "budget")
    assert world.states() == ["COMPLETE", "PRUNED"]
    assert world.trial(1).value == 2.0
    assert [trial.value for trial in world.optuna().trials] == [0.8, 2.0]
    assert world.differences() == []


def test_a_study_of_which_none_can_be_promoted_ends(world: World) -> None:
    opened(world, trials=2, factor=3)
    workers = [world.worker(name) for name in "ab"]
    for value, held in enumerate([worker.claim() for worker in workers]):
        reach(held, 10, float(value))
    assert (world.study().state, world.states()) == ("ENDED", ["PRUNED", "PRUNED"])
    assert world.differences() == []


def test_a_stop_settles_the_paused(world: World) -> None:
    opened(world)
    worker = world.worker()
    reach(worker.claim(), 10, 1.0)
    on_its_way = worker.claim()
    assert on_its_way.report((10, 2.0)).decision == "pause"
    world.stop()
    assert on_its_way.heartbeat(10) == "stop"
    on_its_way.finish("pruned", 10)
    assert (world.study().state, world.states()) == ("ENDED", ["PRUNED", "PRUNED"])
    assert world.differences() == []


def test_one_promotable_trial_is_granted_once(world: World) -> None:
    opened(world, trials=2)
    held = [world.worker(name).claim() for name in "ab"]
    reach(held[0], 10, 1.0)
    reach(held[1], 10, 2.0)
    workers = [world.worker(f"w{i}") for i in range(6)]
    got = [one for one in storm([worker.claim for worker in workers]) if one is not None]
    assert [(one.grant.number, one.grant.attempt) for one in got] == [(0, 2)]
