"""What a study asks of a worker, and what is said where nobody has it."""

from __future__ import annotations

from typing import Any

import pytest

from service.dispatch import claim, steer, sweep
from service.dispatch.reading import Reading
from studies.changes import ChangeBody
from studies.errors import InvalidInput
from studies.spec import parse_spec
from tests.service.test_promotion import opened, reach
from tests.service.world import LEASE, World

GIB = 2**30  # bytes
PLAIN = {"devices": 1, "memory": 4 * GIB, "precisions": ["fp32"]}
GPU = {"devices": 2, "memory": 80 * GIB, "precisions": ["fp32", "tf32", "bf16", "fp16"]}


def spec(precision: Any = None, **resources: Any):
    search = {} if precision is None else {"precision": {"choice": precision}}
    said = {"name": "a", "data": {"builtin": "stdlib"}, "search": search, "resources": resources}
    return parse_spec(said)


@pytest.mark.parametrize(
    ("precision", "resources", "lacking"),
    [
        (None, {}, None),
        (["bf16", "fp16"], {}, None),  # they are emulated
        (None, {"devices": 2}, "2 devices"),
        (None, {"memory_gib": 4.0}, None),
        (None, {"memory_gib": 4.5}, "4.5 GiB of memory on each device"),
        (None, {"native": True}, None),
        (["fp32", "bf16", "fp16"], {"native": True}, "native bf16 and fp16"),
    ],
)
def test_a_worker_is_told_what_it_lacks(precision, resources, lacking) -> None:
    study = spec(precision, **resources)
    assert study.lacking(PLAIN) == lacking
    assert study.lacking(GPU) is None


def test_a_worker_that_says_nothing_has_one_device_of_which_nothing_is_known() -> None:
    assert spec().lacking({}) is None
    assert spec(devices=2).lacking({}) == "2 devices"
    assert spec(memory_gib=1).lacking({}) == "1 GiB of memory on each device"
    assert spec(native=True).lacking({"precisions": 3, "devices": 1}) == "native fp32"


def test_a_precision_that_is_fixed_is_needed_too() -> None:
    said = {"name": "a", "data": {"builtin": "stdlib"}, "train": {"precision": "bf16"}}
    study = parse_spec(said | {"resources": {"native": True}})
    assert study.lacking(PLAIN) == "native bf16"
    assert study.lacking(GPU) is None


def test_a_study_goes_to_the_workers_that_have_what_it_needs(small_world: World) -> None:
    world = small_world
    world.open(search={"precision": {"choice": ["fp32", "bf16"]}}, resources={"native": True})
    reading = Reading(world.ctx)
    name = world.study().name
    assert reading.study(name).lacking is None  # nobody is there: the pages say that

    def offered(worker: Any, has: dict[str, Any]) -> bool:
        body = worker.body(1).model_copy(update={"resources": has})
        got = world.db.write(lambda tx: claim.first_claim(tx, world.ctx, worker.id, body))
        return bool(got.grant or got.ask)

    assert not offered(world.worker("plain"), PLAIN)
    assert reading.study(name).lacking == "native bf16"
    assert offered(world.worker("gpu"), GPU)
    assert reading.study(name).lacking is None
    world.advance(2 * LEASE)  # the workers are silent
    assert reading.study(name).lacking is None


def set_workers(world: World, workers: int | None) -> None:
    body = ChangeBody.model_validate({"resources": {"workers": workers}})
    world.db.write(lambda tx: steer.change(tx, world.ctx, "study", body))


def wanted(world: World) -> int:
    return world.db.read(lambda conn: sweep.wanted_workers(conn, world.ctx))


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_no_more_workers_train_a_study_than_it_asked_for(world: World, sampler: str) -> None:
    world.open(budget={"trials": 8}, resources={"workers": 2}, sampler={"kind": sampler})
    first, second, third = (world.worker(name) for name in "abc")
    held = first.claim()
    assert second.claim()
    assert wanted(world) == 2
    assert third.claim() is None
    world.enqueue()
    assert third.claim() is None  # nor one that is there
    held.train()
    assert third.claim()
    assert world.counts()["RUNNING"] == 2


def test_another_study_has_the_workers_that_a_full_one_does_not_take(world: World) -> None:
    world.open("full", resources={"workers": 1})
    world.open("other")
    studies = [world.worker(name).claim().grant.study for name in "abc"]
    assert sorted(studies) == ["full", "other", "other"]


def test_in_a_full_study_the_trial_of_a_silent_worker_goes_on_elsewhere(world: World) -> None:
    world.open(budget={"trials": 8}, resources={"workers": 1})
    world.worker().claim()
    world.advance(2 * LEASE)
    held = world.worker("other").claim()
    assert (held.grant.number, held.grant.attempt) == (0, 2)


def test_a_full_study_promotes_nothing(world: World) -> None:
    opened(world, trials=2, resources={"workers": 1})
    worker, other = world.worker(), world.worker("other")
    assert reach(worker.claim(), 10, 1.0) == reach(worker.claim(), 10, 2.0) == "pause"
    assert worker.claim().grant.number == 0  # promoted, and the study is full again
    assert other.claim() is None


def test_workers_are_added_and_taken_while_a_study_goes_on(world: World) -> None:
    world.open(budget={"trials": 8}, resources={"workers": 1})
    first, second = world.worker(), world.worker("other")
    one = first.claim()
    assert second.claim() is None
    rings = world.rings
    set_workers(world, 2)
    assert world.rings > rings  # who waits hears of it
    two = second.claim()
    set_workers(world, 1)
    assert (one.heartbeat(), two.heartbeat()) == ("continue", "continue")  # they go on
    two.train()
    assert second.claim() is None
    set_workers(world, None)
    assert second.claim()
    assert wanted(world) == 8 - 1
    said = [event.detail for event in world.reading.history("study").items]
    changes = [detail["changes"]["workers"] for detail in said if "changes" in detail]
    assert changes == [[1, None], [2, 1], [1, 2]]
    assert world.differences() == []


@pytest.mark.parametrize(
    ("train", "search", "lacking"),
    [
        ({"windows": "streams"}, {}, "at most 1 device (windows: streams)"),
        ({}, {"windows": {"choice": ["random", "streams"]}}, "at most 1 device (windows: streams)"),
        ({"batch_size": 3}, {}, "at most 3 devices (batch_size: 3)"),
        ({}, {"batch_size": {"log": [2, 64]}}, "at most 2 devices (batch_size: 2)"),
        ({"batch_size": 4}, {}, None),
    ],
)
def test_a_worker_with_more_devices_than_a_batch_can_be_shared_among(
    train, search, lacking
) -> None:
    said = {"name": "a", "data": {"builtin": "stdlib"}, "train": train, "search": search}
    study = parse_spec(said)
    assert study.lacking({"devices": 4}) == lacking
    assert study.lacking({"devices": 1}) is None
    if lacking is None:
        assert parse_spec(said | {"resources": {"devices": 4}})
        return
    with pytest.raises(InvalidInput, match=r"resources\.devices: a batch cannot be shared among 4"):
        parse_spec(said | {"resources": {"devices": 4}})


def test_a_script_shares_its_batches_itself() -> None:
    script = {"kind": "script", "command": ["python", "mine.py"]}
    said = {"name": "a", "data": {"builtin": "stdlib"}, "model": script}
    study = parse_spec(said | {"train": {"windows": "streams"}, "resources": {"devices": 2}})
    assert study.lacking({"devices": 4}) is None


def test_workers_that_lack_something_are_not_joined_by_many_of_their_kind(world: World) -> None:
    world.open(budget={"trials": 8}, resources={"devices": 2})
    assert wanted(world) == 8  # nobody is there
    world.worker("plain").claim()
    assert wanted(world) == 1
    worker = world.worker("gpu")
    body = worker.body(1).model_copy(update={"resources": GPU})
    world.db.write(lambda tx: claim.first_claim(tx, world.ctx, worker.id, body))
    assert wanted(world) == 8


def test_one_of_many_workers_that_has_all_is_enough(world: World) -> None:
    for number in range(250):
        worker = world.worker(f"w{number}")
        has = PLAIN if number else GPU  # the one that was heard of first
        body = worker.body(1).model_copy(update={"resources": has})
        world.db.write(lambda tx, w=worker, b=body: claim.first_claim(tx, world.ctx, w.id, b))
    world.open(resources={"devices": 2})
    assert Reading(world.ctx).study("study").lacking is None
    world.open("more", resources={"devices": 3})
    assert Reading(world.ctx).study("more").lacking == "3 devices"
