"""Blobs that nothing points at are collected, in two steps; a text never is."""

from __future__ import annotations

import pytest

from service.dispatch import sweep
from service.dispatch.sweep import UNPOINTED_LEASES
from studies.errors import BlobMissing
from tests.service.world import LEASE, World

OLD = UNPOINTED_LEASES * LEASE + 1


def resume_step(world: World) -> int | None:
    """Where the trial goes on after its lease."""
    world.advance(LEASE * 1.1)
    resume = world.worker().claim().grant.resume
    return resume and resume.step


def collect(world: World, *between) -> list[str]:
    """One collection; `between` happens after the blobs were marked. Returns what was removed."""
    removed: list[str] = []
    marked = world.db.write(lambda tx: sweep.mark_unused_blobs(tx, world.ctx))
    for happens in between:
        happens()
    for digest in marked:
        world.db.write(lambda tx, d=digest: sweep.collect_blob(tx, d, removed.append))
    return removed


def test_an_old_blob_that_nothing_points_at_is_collected(world: World) -> None:
    world.open()
    held = world.worker().claim()
    held.report((10, 1.0))
    for name in "abc":
        world.upload(name * 64, age=OLD)
    held.point(10, "a" * 64, 10)
    world.upload("d" * 64, kind="data", age=OLD)
    world.upload("e" * 64)
    assert sorted(collect(world)) == ["b" * 64, "c" * 64]
    assert [row.sha256[0] for row in world.rows("blobs")] == ["a", "d", "e"]
    assert collect(world) == []


def test_a_blob_of_a_dropped_pointer_is_collected(small_world: World) -> None:
    small_world.open()
    held = small_world.worker().claim()
    held.report((10, 1.0))
    for step in (11, 12, 13):
        held.checkpoint(step, last=10)
    for row in small_world.rows("blobs"):
        small_world.change("blobs", {"sha256": row.sha256}, created_at=0.0)
    assert len(collect(small_world)) == 1
    assert resume_step(small_world) == 13


def test_a_dying_blob_is_missing_until_it_is_uploaded_again(world: World) -> None:
    world.open()
    held = world.worker().claim()
    held.report((10, 1.0))
    world.upload("a" * 64, age=OLD)

    def again() -> None:
        with pytest.raises(BlobMissing):
            held.point(10, "a" * 64, 10)
        world.upload("a" * 64)
        held.point(10, "a" * 64, 10)

    assert collect(world, again) == []
    assert resume_step(world) == 10


def test_a_text_stays_a_text_whatever_else_has_its_bytes(world: World) -> None:
    for first, second in (("data", "checkpoint"), ("checkpoint", "data")):
        digest = first[0] * 64
        world.upload(digest, age=OLD, kind=first)
        world.upload(digest, age=OLD, kind=second)
    assert collect(world) == []
    assert {row.kind for row in world.rows("blobs")} == {"data"}


def test_a_collection_that_was_cut_short_is_taken_up_again(world: World) -> None:
    world.upload("a" * 64, age=OLD)
    world.db.write(lambda tx: sweep.mark_unused_blobs(tx, world.ctx))
    assert collect(world.restarted()) == ["a" * 64]


def test_a_blob_that_is_uploaded_while_it_is_collected_lives_on(world: World) -> None:
    digest, removed = "a" * 64, []
    world.upload(digest, age=OLD)
    assert world.db.write(lambda tx: sweep.mark_unused_blobs(tx, world.ctx)) == [digest]
    world.upload(digest)
    world.db.write(lambda tx: sweep.collect_blob(tx, digest, removed.append))
    assert removed == []
    assert [row.state for row in world.rows("blobs")] == ["live"]


def test_a_checkpoint_whose_blob_is_gone_is_not_resumed(small_world: World) -> None:
    small_world.open()
    held = small_world.worker().claim()
    held.report((10, 1.0), (20, 1.0))
    held.checkpoint(10)
    held.checkpoint(20)
    lost = small_world.rows("checkpoints", step=20)[0].sha256
    small_world.change("blobs", {"sha256": lost}, state="dying")
    assert resume_step(small_world) == 10
