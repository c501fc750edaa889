"""The checker finds nothing in a storm in which all is well, and finds each thing that is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.chaos import checker, small
from tests.chaos.checker import Copy, Known
from tests.chaos.history import Away, Call
from tests.chaos.rows import Theirs
from tests.chaos.small import END, STEPS, STOLEN, TRIAL

BREAKS: list[tuple[str, Callable[[Known], None]]] = []


def breaks(found: str) -> Callable[[Callable[[Known], None]], Callable[[Known], None]]:
    """Registers a change to the small storm, and the violation that it is."""

    def register(change: Callable[[Known], None]) -> Callable[[Known], None]:
        BREAKS.append((found, change))
        return change

    return register


def trial(known: Known, **values: Any) -> None:
    known.rows.trials[0].update(values)


def attempt(known: Known, number: int, **values: Any) -> None:
    known.rows.attempts[TRIAL][number - 1].update(values)


def report(known: Known, index: int, **values: Any) -> None:
    known.rows.reports[TRIAL][index].update(values)


def call(known: Known, op: str, number: int = 0, **values: Any) -> Call:
    """Changes one call of the history; returns it."""
    at = [i for i, made in enumerate(known.calls) if made.op == op][number]
    known.calls[at] = replace(known.calls[at], **values)
    return known.calls[at]


@breaks("lost (I2)")
def a_report_is_gone(known: Known) -> None:
    del known.rows.reports[TRIAL][2]


@breaks("mismatched (I2)")
def a_report_holds_other_numbers(known: Known) -> None:
    report(known, 0, body='{"metrics": {"validation_loss": 9.0}}')


@breaks("duplicated (I2)")
def a_report_is_stored_twice(known: Known) -> None:
    known.rows.reports[TRIAL].insert(0, known.rows.reports[TRIAL][0])


@breaks("duplicated (I2)")
def a_report_is_invented(known: Known) -> None:
    sent = call(known, "report").body["items"][0]
    call(known, "report", body={"items": [{**sent, "step": STEPS[0] + 1}]})


@breaks("lost (I2)")
def a_finish_is_gone(known: Known) -> None:
    attempt(known, 2, finish=None)


@breaks("mismatched (I7)")
def a_finish_was_answered_otherwise(known: Known) -> None:
    call(known, "finish", answer={"state": "PRUNED"})


@breaks("mismatched (I4)")
def a_trial_left_its_end(known: Known) -> None:
    kept = {"said": {"outcome": "ok"}, "answer": {"state": "PRUNED"}}
    attempt(known, 2, finish=kept)
    call(known, "finish", answer={"state": "PRUNED"})


@breaks("lost (I1)")
def a_grant_is_gone(known: Known) -> None:
    attempt(known, 2, lease_hash="0" * 64)


@breaks("duplicated (I1)")
def an_attempt_was_granted_twice(known: Known) -> None:
    other = call(known, "claim", 1)
    known.calls.append(replace(other, who="w3", body={**other.body, "lease_token": "3" * 32}))


@breaks("lost (I8)")
def a_checkpoint_is_gone(known: Known) -> None:
    answer = call(known, "claim", 1).answer
    call(known, "claim", 1, answer={**answer, "resume": None})


@breaks("duplicated (I8)")
def a_checkpoint_is_invented(known: Known) -> None:
    answer = call(known, "claim", 1).answer
    call(known, "claim", 1, answer={**answer, "resume": {"step": STEPS[1], "sha256": "b" * 64}})


@breaks("stuck (I5)")
def a_trial_has_not_ended(known: Known) -> None:
    trial(known, state="RUNNING")


@breaks("stuck (I5)")
def an_attempt_lives_on(known: Known) -> None:
    attempt(known, 2, outcome=None)


@breaks("stuck (I5)")
def a_study_has_not_ended(known: Known) -> None:
    known.rows.studies[0]["state"] = "ENDING"


@breaks("stuck (I5)")
def a_slot_was_not_used(known: Known) -> None:
    known.rows.studies[0]["spec"] = {"budget": {"trials": 2}}


@breaks("stuck (I5)")
def trials_are_missing(known: Known) -> None:
    known.wanted = 2


@breaks("mismatched (I8)")
def a_loss_is_another(known: Known) -> None:
    report(known, 1, value=1.0)


@breaks("mismatched (I8)")
def the_final_loss_is_another(known: Known) -> None:
    trial(known, value=END.value * (1 + 1e-15))
    known.rows.theirs[TRIAL] = replace(known.rows.theirs[TRIAL], value=END.value * (1 + 1e-15))


@breaks("lost (I2)")
def a_visible_step_is_left_out(known: Known) -> None:
    report(known, 1, superseded=True)


@breaks("lost (I8)")
def a_complete_trial_lacks_its_end(known: Known) -> None:
    report(known, -1, superseded=True)


@breaks("mismatched (I6)")
def optuna_lacks_the_trial(known: Known) -> None:
    known.rows.theirs[TRIAL] = None


@breaks("mismatched (I6)")
def optuna_has_another_state(known: Known) -> None:
    known.rows.theirs[TRIAL] = replace(known.rows.theirs[TRIAL], state="RUNNING")


@breaks("mismatched (I6)")
def optuna_has_another_curve(known: Known) -> None:
    theirs = known.rows.theirs[TRIAL]
    known.rows.theirs[TRIAL] = Theirs(theirs.state, theirs.value, theirs.params, {1: 1.0})


@breaks("mismatched (I6)")
def reconcile_says_something(known: Known) -> None:
    known.rows.differences.append("study small: something")


@breaks("mismatched (answers)")
def a_call_was_answered_with_a_defect(known: Known) -> None:
    known.calls.append(Call("c99", "heartbeat", "w1", 1.0, 1.1, "fail", 500, trial=TRIAL))


@breaks("lost (answers)")
def a_granted_checkpoint_cannot_be_fetched(known: Known) -> None:
    answer = {"code": "not_found"}
    lost = Call("c99", "download", "w1", 1.0, 1.1, "fail", 404, trial=TRIAL, answer=answer)
    known.calls.append(lost)


@breaks("lost (I2)")
def what_a_person_enqueued_is_gone(known: Known) -> None:
    call(known, "enqueue", answer={"number": 4})


@breaks("lost (I2)")
def a_cancellation_was_forgotten(known: Known) -> None:
    said = {"study": "small", "body": {"number": 0}}
    known.calls.append(Call("c99", "cancel", "people", 1.0, 1.1, "ok", 200, **said))


@breaks("lost (I2)")
def a_stop_was_forgotten(known: Known) -> None:
    known.calls.append(Call("c99", "stop", "people", 1.0, 1.1, "ok", 200, study="small"))


@breaks("lost (I2)")
def a_copy_of_the_file_is_broken(known: Known) -> None:
    known.copies = [Copy(1.0, "row 3 missing", set())]


@breaks("lost (I2)")
def a_copy_of_the_file_lacks_a_report(known: Known) -> None:
    known.copies = [Copy(STOLEN, "ok", set())]


@breaks("mismatched (I1)")
def an_attempt_has_no_row(known: Known) -> None:
    del known.rows.attempts[TRIAL][0]


@breaks("duplicated (I1)")
def two_attempts_live_at_once(known: Known) -> None:
    attempt(known, 1, outcome=None)


@breaks("duplicated (I1)")
def a_claim_was_granted_two_trials(known: Known) -> None:
    attempt(known, 1, worker_id=2)


@breaks("mismatched (I3)")
def a_zombie_was_heard(known: Known) -> None:
    call(known, "report", 2, begun=STOLEN + 1.0, ended=STOLEN + 1.1)


@breaks("mismatched (I3)")
def a_zombies_report_was_stored(known: Known) -> None:
    known.rows.reports[TRIAL].append(known.rows.reports[TRIAL].pop(2))


@breaks("mismatched (I7)")
def a_decision_changed(known: Known) -> None:
    answer = call(known, "report").answer
    call(known, "report", answer={**answer, "decision": "stop"})


@breaks("mismatched (I10)")
def a_transition_was_not_audited(known: Known) -> None:
    del known.rows.events[1, 0][1]


@breaks("mismatched (I10)")
def a_transition_is_not_drawn(known: Known) -> None:
    known.rows.events[1, 0][1]["kind"] = "complete"


@breaks("duplicated (I4)")
def a_trial_ended_twice(known: Known) -> None:
    known.rows.events[1, 0].append({"kind": "complete", "detail": {}})


@breaks("mismatched (I10)")
def a_study_skipped_a_state(known: Known) -> None:
    del known.rows.events[1, None][1]


@breaks("mismatched (I9)")
def a_fifth_attempt_came_after_four_failures(known: Known) -> None:
    row = known.rows.attempts[TRIAL][0]
    lost = [{**row, "attempt": n, "claim_seq": n, "outcome": "lost"} for n in range(3, 8)]
    known.rows.attempts[TRIAL] += lost


@breaks("mismatched (I9)")
def a_trial_failed_too_early(known: Known) -> None:
    trial(known, state="FAILED", reason="lost: the worker is gone")


@breaks("mismatched (I1)")
def a_trial_was_stolen_within_its_lease(known: Known) -> None:
    call(known, "report", 2, begun=STOLEN - 0.5, ended=STOLEN - 0.4)


@breaks("mismatched (I1)")
def a_trial_was_stolen_while_no_server_ticked(known: Known) -> None:
    known.away = [Away(STOLEN - 9.3, STOLEN - 0.1)]


@breaks("mismatched (F25)")
def a_stranger_was_granted_a_trial(known: Known) -> None:
    body = call(known, "claim", 1).body
    call(known, "claim", 1, body={**body, "protocol": 99})


def test_nothing_is_found_where_all_is_well() -> None:
    assert checker.check(small.known()) == []


@pytest.mark.parametrize(("found", "change"), BREAKS, ids=[c.__name__ for _, c in BREAKS])
def test_each_thing_that_is_wrong_is_found(found: str, change: Callable[[Known], None]) -> None:
    known = small.known()
    change(known)
    assert found in {str(violation).split(":")[0] for violation in checker.check(known)}


def test_the_last_line_counts_by_kind_and_the_shortest_history_is_the_trials() -> None:
    known = small.known()
    a_report_is_gone(known)
    violations = checker.check(known)
    assert checker.counts(violations) == "lost=1 duplicated=0 stuck=0 mismatched=0"
    assert {made.trial for made in checker.shortest(known, violations)} == {TRIAL, None}
