"""Claims: numbered by the worker, answered once, fair between studies, within the budget."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from service.dispatch import claim as claims
from service.dispatch.sweep import worker_gone
from studies.errors import NotFound, StaleClaim
from tests.service.world import LEASE, Worker, World

# ------------------------------------------------------------------ numbers


def test_a_drained_worker_gets_no_new_trial_and_ends_the_one_it_has(world: World) -> None:
    world.open()
    worker, other = world.worker(), world.worker("other")
    held = worker.claim()
    drain(world, worker, True)
    assert held.train() == "COMPLETE"
    assert worker.claim() is None
    assert other.claim() is not None
    assert [w.draining for w in sorted(world.reading.workers(), key=lambda w: w.id)] == [
        True,
        False,
    ]
    rings = world.rings
    drain(world, worker, False)
    assert world.rings > rings
    assert worker.claim() is not None
    with pytest.raises(NotFound):
        world.db.write(lambda tx: claims.drain(tx, world.ctx, 99, True))


def drain(world: World, worker: Worker, draining: bool) -> None:
    world.db.write(lambda tx: claims.drain(tx, world.ctx, worker.id, draining))


def test_the_same_claim_again_gets_the_same_grant_and_nothing_new(world: World) -> None:
    world.open()
    worker = world.worker()
    first = worker.claim_as(1)
    assert worker.claim_as(1).grant == first.grant
    assert len(world.rows("trials")) == 1
    assert len(world.rows("attempts")) == 1


def test_a_claim_after_a_restart_is_known(world: World) -> None:
    world.open()
    worker = world.worker()
    first = worker.claim_as(1)
    assert worker.claim_as(1, world=world.restarted()).grant == first.grant


def test_a_retry_whose_trial_is_over_gets_nothing(world: World) -> None:
    world.open()
    worker = world.worker()
    worker.claim_as(1).train()
    assert worker.claim_as(1) is None
    assert len(world.rows("trials")) == 1


def test_a_retry_of_a_claim_that_got_nothing_gets_nothing_new(world: World) -> None:
    worker = world.worker()
    assert worker.claim_as(1) is None
    world.open()
    assert worker.claim_as(1) is None
    assert worker.claim_as(2).grant.number == 0


def test_a_retry_with_another_lease_token_gets_nothing(small_world: World) -> None:
    small_world.open()
    worker = small_world.worker()
    worker.claim_as(1)
    assert worker.claim_as(1, token="f" * 32) is None


def test_an_older_claim_is_stale(world: World) -> None:
    world.open()
    worker = world.worker()
    worker.claim_as(5)
    with pytest.raises(StaleClaim, match="claim 4 is older than claim 5"):
        worker.claim_as(4)
    assert len(world.rows("trials")) == 1


def test_a_waiting_claim_is_over_when_a_newer_one_came(world: World) -> None:
    worker = world.worker()
    worker.begin_waiting(1)
    worker.begin_waiting(2)
    world.open()
    with pytest.raises(StaleClaim):
        worker.wait_as(1)
    assert worker.wait_as(2).grant.attempt == 1
    assert worker.wait_as(2).grant.number == 0
    assert len(world.rows("attempts")) == 1


def test_a_waiting_claim_of_a_worker_that_left_gets_nothing(world: World) -> None:
    worker = world.worker()
    worker.begin_waiting(1)
    world.db.write(lambda tx: worker_gone(tx, worker.id))
    world.open()
    with pytest.raises(StaleClaim):
        worker.wait_as(1)
    assert world.rows("trials") == []


def test_an_unknown_worker_is_told_to_register(small_world: World) -> None:
    with pytest.raises(NotFound, match="register again"):
        Worker(small_world, 99).claim()


def test_the_same_registration_is_one_worker(world: World) -> None:
    ids = [world.worker(name).id for name in ("a", "b", "a")]
    assert ids[0] == ids[2] != ids[1]
    assert len(world.rows("workers")) == 2


# ------------------------------------------------------------------ order


def test_released_and_expired_trials_come_before_new_ones(world: World) -> None:
    world.open()
    worker = world.worker()
    expires, released = worker.claim(), worker.claim()
    world.advance(LEASE * 0.6)
    runs = worker.claim()
    released.finish("preempted", 0)
    world.advance(LEASE * 0.6)
    granted = [worker.claim().grant.number for _ in range(3)]
    assert granted == [expires.grant.number, released.grant.number, runs.grant.number + 1]


def test_an_enqueued_trial_comes_before_a_suggestion(small_world: World) -> None:
    small_world.open()
    small_world.enqueue(learning_rate=0.0123)
    grant = small_world.worker().claim().grant
    assert grant.recipe.train.learning_rate == 0.0123


def test_nothing_is_granted_by_paused_ending_or_ended_studies(small_world: World) -> None:
    for name, action in (("a", "pause"), ("b", "stop")):
        small_world.open(name)
        small_world.enqueue(name)
        getattr(small_world, action)(name)
    assert small_world.worker().claim() is None


def test_two_studies_share_the_workers(world: World) -> None:
    world.open("a")
    world.open("b")
    worker = world.worker()
    held = [worker.claim() for _ in range(4)]
    assert Counter(h.grant.study for h in held) == {"a": 2, "b": 2}
    for mine in [h for h in held if h.grant.study == "a"]:
        mine.train()
    assert [worker.claim().grant.study for _ in range(2)] == ["a", "a"]


def test_a_study_that_is_full_leaves_the_workers_to_the_next(small_world: World) -> None:
    small_world.open("a", budget={"trials": 1})
    small_world.open("b")
    worker = small_world.worker()
    assert [worker.claim().grant.study for _ in range(3)] == ["a", "b", "b"]


# ------------------------------------------------------------------ the grant


def test_a_grant_says_all_that_a_worker_needs(small_world: World) -> None:
    small_world.open(train={"steps": 30, "evaluate_every": 10, "batch_size": 4})
    grant = small_world.worker().claim().grant
    params = small_world.trial().params
    assert grant.recipe.train.learning_rate == params["learning_rate"]
    assert grant.recipe.train.batch_size == 4
    assert grant.recipe.train.seed is not None
    assert (grant.max_step, grant.resume, grant.attempt) == (30, None, 1)
    assert (grant.lease_ms, grant.heartbeat_ms) == (1_000, 250)


def test_the_seed_of_a_trial_follows_the_study_seed_and_its_number(small_world: World) -> None:
    for name in ("a", "b"):
        small_world.open(name)
    small_world.open("c", sampler={"kind": "random", "seed": 8})
    worker = small_world.worker()
    seeds = {}
    for _ in range(6):
        grant = worker.claim().grant
        seeds[grant.study, grant.number] = grant.recipe.train.seed
    assert seeds["a", 0] == seeds["b", 0]
    assert seeds["a", 1] == seeds["b", 1]
    assert len(set(seeds.values())) == 4


def test_a_configuration_that_fits_no_recipe_is_passed_over(small_world: World) -> None:
    """Only extremes are checked when a study is made: 4 heads divide 64 and 128, but not 65."""
    small_world.open(
        model={"kind": "gpt", "heads": 4, "positions": "learned"},
        search={"embedding_dim": {"uniform": [64, 128]}},
    )
    worker = small_world.worker()
    widths = [worker.claim().grant.recipe.model.embedding_dim for _ in range(3)]
    assert all(width % 4 == 0 for width in widths)
    reasons = [row.reason for row in small_world.rows("trials", state="CANCELLED")]
    assert reasons
    assert all("do not divide" in reason for reason in reasons)
    assert small_world.differences() == []


# ------------------------------------------------------------------ at once


def storm(claims: list, threads: int = 4) -> list:
    """Runs the claims in threads that start together; returns what they got."""
    barrier, got = threading.Barrier(threads), []

    def run(mine: list) -> None:
        barrier.wait()
        for call in mine:
            got.append(call())

    running = [threading.Thread(target=run, args=(claims[i::threads],)) for i in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return got


def test_claims_at_once_never_exceed_the_budget(world: World) -> None:
    world.open(budget={"trials": 5})
    servers = [world, world.restarted()]
    workers = [world.worker(f"w{i}") for i in range(8)]
    claims = [
        lambda w=worker, s=servers[i % 2], n=seq: w.claim_as(n, world=s)
        for seq in (1, 2)
        for i, worker in enumerate(workers)
    ]
    got = [held for held in storm(claims) if held is not None]
    assert sorted(held.grant.number for held in got) == [0, 1, 2, 3, 4]
    assert {held.grant.attempt for held in got} == {1}
    assert world.differences() == []


def test_one_released_trial_is_granted_once(world: World) -> None:
    world.open(budget={"trials": 1})
    world.worker("first").claim().finish("preempted", 0)
    workers = [world.worker(f"w{i}") for i in range(8)]
    got = [held for held in storm([worker.claim for worker in workers]) if held is not None]
    assert [held.grant.attempt for held in got] == [2]


def test_a_claim_and_its_retry_at_once_get_one_trial(world: World) -> None:
    world.open()
    worker = world.worker()
    got = storm([lambda: worker.claim_as(1)] * 4)
    assert {held.grant.trial_id for held in got} == {got[0].grant.trial_id}
    assert len(world.rows("attempts")) == 1


def test_a_waiting_claim_twice_at_once_gets_one_trial(world: World) -> None:
    worker = world.worker()
    worker.begin_waiting(1)
    world.open()
    got = storm([lambda: worker.wait_as(1)] * 4)
    assert len({held.grant.trial_id for held in got}) == 1
    assert len(world.rows("attempts")) == 1


def test_a_claim_rings_for_nobody_and_new_work_rings(small_world: World) -> None:
    small_world.open()
    assert small_world.rings == 1
    small_world.worker().claim().finish("preempted", 0)
    assert small_world.rings == 2
    small_world.enqueue()
    assert small_world.rings == 3
