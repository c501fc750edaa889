"""Every transition of the tables happens, and the ends of attempts make what their table says."""

from __future__ import annotations

import itertools

import pytest

from service.dispatch.settle import ATTEMPTS, CASES, REFUSALS, Facts, verdict
from studies.trial import (
    ENDS,
    STUDY_TRANSITIONS,
    TRANSITIONS,
    Desired,
    Outcome,
    StudyState,
    TrialState,
)
from tests.service.world import LEASE, World

FACTS = [
    Facts(desired, outcome, value, failures, refusals=refusals)
    for desired, outcome, value, failures, refusals in itertools.product(
        Desired, Outcome, (1.0, float("nan")), (0, ATTEMPTS), (0, REFUSALS)
    )
    if outcome is not Outcome.PRUNED or desired in (Desired.STOP, Desired.CANCEL)
]


@pytest.mark.parametrize("outcome", list(Outcome))
def test_an_end_makes_of_its_trial_what_its_table_says(outcome: Outcome) -> None:
    stolen = {TrialState.RUNNING} if outcome is Outcome.LOST else set()  # by a claim, not by settle
    made = {verdict(facts)[0] for facts in FACTS if facts.outcome is outcome}
    assert ENDS[outcome].trial == made | stolen


def test_each_rule_of_settle_is_the_first_that_holds_for_some_end() -> None:
    used = {next(case.when for case in CASES if case.holds(facts)) for facts in FACTS}
    assert used == {case.when for case in CASES}


def transitions(world: World) -> set[tuple[str, str]]:
    """The changes of state of trials and studies, as the audit log has them."""
    made: set[tuple[str, str]] = set()
    before: dict[tuple[int, int | None], str] = {}
    states = {*map(str.lower, TrialState), *(f"study_{state.lower()}" for state in StudyState)}
    for event in world.rows("events"):
        if event.kind not in states:
            continue
        what = (event.study_id, event.trial)
        if what in before:
            made.add((before[what], event.kind))
        before[what] = event.kind
    return made


def go_every_way(world: World) -> None:
    worker = world.worker()
    worker.claim().finish("diverged")
    worker.claim().finish("preempted")
    worker.claim()
    world.advance(LEASE * 1.1)
    world.worker("thief").run()  # steals, and trains to the end
    cancelled, *paused = [worker.claim() for _ in range(3)]
    world.cancel(2)
    cancelled.finish("pruned")
    world.pause()
    for held in paused:
        held.finish("paused")
    world.cancel(3)
    world.resume()
    world.cancel(4)
    paused, released, stopped = [worker.claim() for _ in range(3)]
    released.finish("preempted")
    world.pause()
    paused.finish("paused")
    world.stop()
    stopped.finish("pruned")


def promote(world: World) -> None:
    scheduler = {"kind": "asha", "mode": "promote", "min_steps": 10, "reduction_factor": 2}
    world.open("promoting", scheduler=scheduler, budget={"trials": 2})
    worker = world.worker("promoted")
    for held, value in ((worker.claim(), 1.0), (worker.claim(), 2.0)):
        held.report((10, value))
        held.finish("paused", 10)
    assert worker.claim().grant.number == 0


def test_every_transition_of_the_tables_happens(small_world: World) -> None:
    small_world.open(budget={"trials": 8})
    small_world.open("other")
    small_world.stop("other")
    go_every_way(small_world)
    promote(small_world)
    trials = {(a.lower(), b.lower()) for a, ends in TRANSITIONS.items() for b in ends}
    studies = {
        (f"study_{a.lower()}", f"study_{b.lower()}")
        for a, ends in STUDY_TRANSITIONS.items()
        for b in ends
    }
    assert transitions(small_world) == trials | studies
