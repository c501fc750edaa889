"""Workers of other versions, and workers that cannot run what they are given."""

from __future__ import annotations

import pytest

from service.dispatch import claim
from service.dispatch.settle import ATTEMPTS, REFUSALS
from studies import wire
from studies.errors import Incompatible
from tests.service.world import World


@pytest.mark.parametrize(("spoken", "older"), [(0, "worker"), (wire.PROTOCOL + 1, "server")])
def test_a_protocol_that_is_not_spoken_is_refused_with_a_remedy(small_world, spoken, older) -> None:
    small_world.open()
    worker, remedy = small_world.worker(), f"upgrade lmtune on the {older}"
    body = worker.body(1).model_copy(update={"protocol": spoken})
    with pytest.raises(Incompatible, match=remedy):
        small_world.db.write(lambda tx: claim.first_claim(tx, small_world.ctx, worker.id, body))
    other = wire.RegisterBody(
        name="other", host="box", pid=1, device="cpu", protocol=spoken, code_hash="c"
    )
    with pytest.raises(Incompatible, match=remedy):
        small_world.db.write(lambda tx: claim.register(tx, small_world.ctx, other))
    assert [row.claim_seq for row in small_world.rows("workers")] == [0]
    assert worker.claim_as(1).grant.number == 0


def test_the_protocol_before_is_spoken(monkeypatch) -> None:
    assert wire.PROTOCOL in wire.SPOKEN
    assert set(wire.SPOKEN) == {max(1, wire.PROTOCOL - 1), wire.PROTOCOL}


def test_what_a_worker_has_is_recorded_with_its_claims(world: World) -> None:
    worker, has = world.worker(), {"devices": ["cpu"], "memory": 8}
    body = worker.body(1).model_copy(update={"resources": has, "code_hash": "new"})
    world.db.write(lambda tx: claim.first_claim(tx, world.ctx, worker.id, body))
    row = world.rows("workers")[0]
    assert (row.resources, row.code_hash) == (has, "new")


def test_an_incompatible_worker_is_not_offered_the_study_again(world: World) -> None:
    world.open("a")
    worker = world.worker()
    assert worker.claim().finish("incompatible") == "WAITING"
    assert worker.claim() is None
    world.open("b")
    assert worker.claim().grant.study == "b"
    assert world.worker("other").claim().grant.attempt == 2


def test_an_incompatible_end_costs_no_attempt(world: World) -> None:
    world.open()
    assert world.worker("picky").claim().finish("incompatible") == "WAITING"
    assert world.trial().failures == 0
    worker = world.worker()
    ends = [worker.claim().finish("error") for _ in range(ATTEMPTS)]
    assert ends == ["WAITING"] * (ATTEMPTS - 1) + ["FAILED"]


def test_a_trial_that_three_workers_cannot_run_has_failed(world: World) -> None:
    world.open()
    ends = [
        world.worker(f"w{i}").claim().finish("incompatible", reason="no such precision")
        for i in range(REFUSALS)
    ]
    assert ends == ["WAITING"] * (REFUSALS - 1) + ["FAILED"]
    assert world.trial().reason == "incompatible: no such precision"
    assert world.differences() == []


def test_a_grant_says_what_wrote_the_checkpoint(world: World) -> None:
    world.open()
    held = world.worker().claim()
    held.report((10, 1.0))
    held.checkpoint(10)
    held.finish("preempted", 10)
    resume = world.worker("other").claim().grant.resume
    assert (resume.step, resume.format, resume.code_hash) == (10, 1, "c")
