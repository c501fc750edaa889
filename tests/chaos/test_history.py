"""What the history says of times: calls that were never answered, leases, the lease clock."""

from __future__ import annotations

from dataclasses import replace

from tests.chaos import checker, order, small
from tests.chaos.history import Away, pair
from tests.chaos.small import STOLEN


def test_a_claim_that_was_granted_late_has_its_lease_from_its_first_sending() -> None:
    known = small.known()
    known.calls = [made for made in known.calls if made.attempt != 1]  # it never wrote
    (unanswered,) = [made for made in known.calls if made.op == "claim" and made.who == "w1"]
    sent = replace(unanswered, id="c98", result="info", answer={})
    retried = replace(unanswered, id="c99", begun=STOLEN - 0.5, ended=STOLEN - 0.4)
    calls = [sent, *(retried if made is unanswered else made for made in known.calls)]
    trial = checker.Trial(replace(known, calls=calls), known.rows.trials[0])
    assert list(order.leases_honoured(trial)) == []
    late = checker.Trial(replace(known, calls=calls[1:]), known.rows.trials[0])
    assert [violation.invariant for violation in order.leases_honoured(late)] == ["I1"]


def test_the_lease_clock_stands_while_no_server_ticks() -> None:
    assert order.lease_time(10.0, 14.0, []) == 4.0
    assert order.lease_time(10.0, 14.0, [Away(11.0, 13.5)]) == 2.5  # one tick when it is back
    assert order.lease_time(10.0, 14.0, [Away(2.0, 9.0), Away(15.0, 16.0)]) == 4.0


def test_a_call_that_was_never_answered_is_open() -> None:
    begun = {"t": 1.0, "id": "a", "p": "invoke", "op": "report", "who": "w"}
    answered = {"t": 2.0, "id": "a", "p": "ok", "status": 200, "answer": {"decision": "stop"}}
    assert [made.result for made in pair([begun])[0]] == ["info"]
    (made,), _ = pair([begun, answered])
    assert (made.result, made.ended, made.answer) == ("ok", 2.0, {"decision": "stop"})
