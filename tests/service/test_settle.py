"""settle: how an attempt's end becomes its trial's state, and the one function that moves it."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.dispatch.settle import ATTEMPTS, Facts, move, verdict
from studies.trial import TERMINAL, TRANSITIONS, Desired, Outcome, TrialState
from tests.service.world import World

COUNTED = (Outcome.ERROR, Outcome.LOST, Outcome.HUNG)
FREE = (Outcome.PREEMPTED, Outcome.PAUSED, Outcome.PRUNED, Outcome.INCOMPATIBLE)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
NOT_FINITE = st.sampled_from([math.nan, math.inf, -math.inf])
FACTS = st.builds(
    Facts,
    desired=st.sampled_from(Desired),
    outcome=st.sampled_from(Outcome),
    value=st.none() | FINITE | NOT_FINITE,
    failures=st.integers(0, 2 * ATTEMPTS),
    reason=st.none() | st.text(),
)


def protocol(facts: Facts) -> TrialState:
    """protocol.md's settle rule, read off line by line."""
    finite = facts.value is not None and math.isfinite(facts.value)
    if facts.desired == "cancel":
        return TrialState.CANCELLED
    if facts.outcome == "ok" and finite:
        return TrialState.COMPLETE
    if facts.outcome in ("ok", "diverged", "oom"):
        return TrialState.FAILED
    if facts.desired == "stop":
        return TrialState.PRUNED
    if facts.outcome in ("error", "lost", "hung") and facts.failures >= ATTEMPTS:
        return TrialState.FAILED
    return TrialState.PAUSED if facts.desired == "pause" else TrialState.WAITING


@given(FACTS)
def test_every_end_has_the_verdict_of_the_protocol(facts: Facts) -> None:
    assert verdict(facts)[0] is protocol(facts)


@given(FACTS)
def test_a_verdict_is_always_a_legal_next_state(facts: Facts) -> None:
    assert verdict(facts)[0] in TRANSITIONS[TrialState.RUNNING]


@pytest.mark.parametrize("outcome", list(Outcome))
@pytest.mark.parametrize("value", [1.0, math.nan, None])
def test_a_cancelled_trial_is_cancelled_however_it_ends(outcome, value) -> None:
    facts = Facts(Desired.CANCEL, outcome, value, ATTEMPTS)
    assert verdict(facts) == (TrialState.CANCELLED, "cancelled")


@pytest.mark.parametrize("desired", [Desired.RUN, Desired.PAUSE, Desired.STOP])
def test_a_finished_training_counts_though_a_stop_came_meanwhile(desired) -> None:
    assert verdict(Facts(desired, Outcome.OK, 1.0, 0)) == (TrialState.COMPLETE, None)


@pytest.mark.parametrize("desired", [Desired.RUN, Desired.PAUSE, Desired.STOP])
@pytest.mark.parametrize(
    ("outcome", "value", "reason"),
    [
        (Outcome.OK, math.nan, "diverged"),
        (Outcome.OK, math.inf, "diverged"),
        (Outcome.DIVERGED, 2.0, "diverged"),
        (Outcome.OOM, 2.0, "oom"),
    ],
)
def test_a_loss_that_is_not_finite_and_a_full_memory_fail(desired, outcome, value, reason) -> None:
    assert verdict(Facts(desired, outcome, value, 0)) == (TrialState.FAILED, reason)


def test_a_stopped_trial_is_pruned_even_after_its_last_attempt() -> None:
    assert verdict(Facts(Desired.STOP, Outcome.LOST, None, ATTEMPTS))[0] is TrialState.PRUNED


@pytest.mark.parametrize("outcome", COUNTED)
def test_four_counted_ends_in_a_row_fail(outcome) -> None:
    states = [verdict(Facts(Desired.RUN, outcome, None, n))[0] for n in range(1, 5)]
    assert states == [TrialState.WAITING] * 3 + [TrialState.FAILED]
    assert verdict(Facts(Desired.RUN, outcome, None, 4, "boom"))[1] == f"{outcome}: boom"


@pytest.mark.parametrize("outcome", FREE)
def test_what_is_free_never_fails(outcome) -> None:
    assert verdict(Facts(Desired.RUN, outcome, None, 99))[0] is TrialState.WAITING
    assert verdict(Facts(Desired.PAUSE, outcome, None, 99))[0] is TrialState.PAUSED


# ------------------------------------------------------------------ move


ILLEGAL = [
    pair for pair in itertools.product(TrialState, repeat=2) if pair[1] not in TRANSITIONS[pair[0]]
]


def test_nothing_leaves_a_terminal_state() -> None:
    assert {state for state in TrialState if not TRANSITIONS[state]} == TERMINAL


def test_no_illegal_move_happens(small_world: World) -> None:
    small_world.open()
    small_world.enqueue()
    for before, after in ILLEGAL:
        small_world.change("trials", {"number": 0}, state=before)
        trial = small_world.trial()
        with pytest.raises(AssertionError, match="not a transition"):
            small_world.db.write(lambda tx, t=trial, to=after: move(tx, t, to))
        assert small_world.trial() == trial


def test_each_move_writes_one_event_and_raises_the_revision(small_world: World) -> None:
    small_world.open()
    held = small_world.worker().claim()
    before = small_world.study().revision
    held.report((10, 1.0), (20, 1.0), (30, 0.5))
    held.finish("ok", 30)
    kinds = [row.kind for row in small_world.rows("events", trial=0)]
    assert kinds == ["waiting", "running", "complete"]
    assert small_world.study().revision > before
    assert small_world.trial().revision == small_world.study().revision


def test_a_trial_that_nobody_runs_has_no_lease(world: World) -> None:
    world.open()
    worker = world.worker()
    for outcome in ("preempted", "error", "diverged"):
        held = worker.claim()
        assert world.trial().lease_hash
        held.finish(outcome, 0)
        trial = world.trial()
        assert (trial.lease_hash, trial.lease_until_t, trial.worker_id) == (None, None, None)
