"""The folder of blobs: a file appears whole under its hash, or not at all."""

from __future__ import annotations

import asyncio
import hashlib
import os
import resource
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from service import blobs as module
from service.blobs import BlobFolder
from studies.errors import InvalidInput, StartupError, StorageFull, TooLarge, TooSlow

CHUNKS = [b"hello ", b"wor", b"ld"]
DIGEST = hashlib.sha256(b"hello world").hexdigest()


async def stream(*chunks: bytes, fails: Exception | None = None) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    if fails is not None:
        raise fails


def receive(
    folder: BlobFolder,
    digest: str,
    chunks: AsyncIterator[bytes],
    cap: int = 100,
    room: int | None = None,
) -> int:
    return asyncio.run(folder.receive(digest, chunks, cap, room))


@pytest.fixture
def folder(tmp_path: Path) -> BlobFolder:
    return BlobFolder(tmp_path / "blobs")


def files(folder: BlobFolder) -> list[Path]:
    return [path for path in folder.folder.rglob("*") if path.is_file()]


def test_what_came_lies_under_its_hash(folder: BlobFolder) -> None:
    assert receive(folder, DIGEST, stream(*CHUNKS)) == 11
    assert folder.path(DIGEST).read_bytes() == b"hello world"
    assert files(folder) == [folder.path(DIGEST)]


def test_the_same_again_is_no_error(folder: BlobFolder) -> None:
    for _ in range(2):
        receive(folder, DIGEST, stream(*CHUNKS))
    assert files(folder) == [folder.path(DIGEST)]


def test_another_hash_leaves_nothing(folder: BlobFolder) -> None:
    with pytest.raises(InvalidInput, match=DIGEST):
        receive(folder, "0" * 64, stream(*CHUNKS))
    assert files(folder) == []


def test_more_than_the_cap_leaves_nothing(folder: BlobFolder) -> None:
    with pytest.raises(TooLarge, match="10 bytes"):
        receive(folder, DIGEST, stream(*CHUNKS), cap=10)
    assert files(folder) == []
    assert receive(folder, DIGEST, stream(*CHUNKS), cap=11) == 11


def test_a_full_disk_says_so_leaves_nothing_and_recovers(folder: BlobFolder) -> None:
    """The limit on the size of a file stands for the disk's end; the kernel holds us to it."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, limits[1]))
    try:
        with pytest.raises(StorageFull, match="no room"):
            receive(folder, DIGEST, stream(*CHUNKS))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files(folder) == []
    assert receive(folder, DIGEST, stream(*CHUNKS)) == 11


def test_uploads_share_the_room_that_is_left(folder: BlobFolder) -> None:
    with pytest.raises(StorageFull, match="LMTUNE_MAX_BLOBS_BYTES"):
        receive(folder, DIGEST, stream(*CHUNKS), room=10)
    assert files(folder) == []
    assert receive(folder, DIGEST, stream(*CHUNKS), room=11) == 11


def test_two_uploads_at_once_do_not_both_take_the_last_room(folder, monkeypatch) -> None:
    monkeypatch.setattr(module, "_BATCH", 1)

    async def both() -> list[object]:
        meet = asyncio.Barrier(2)

        async def content() -> AsyncIterator[bytes]:
            yield b"hello "
            await meet.wait()
            yield b"world"

        uploads = (folder.receive(DIGEST, content(), 100, 15) for _ in range(2))
        return await asyncio.gather(*uploads, return_exceptions=True)

    ended = asyncio.run(both())
    (refused,) = [each for each in ended if each != 11]
    assert isinstance(refused, StorageFull)


def test_some_of_the_disk_is_left_for_the_database(folder: BlobFolder, monkeypatch) -> None:
    disk = os.statvfs(folder.folder)
    free = disk.f_bavail * disk.f_frsize
    few = SimpleNamespace(f_bavail=1, f_blocks=100, f_frsize=free)
    monkeypatch.setattr(module.os, "statvfs", lambda _: few)
    monkeypatch.setattr(module, "RESERVE", 5 * free)
    with pytest.raises(StorageFull, match="the database's"):
        receive(folder, DIGEST, stream(*CHUNKS))
    few.f_bavail = 5
    assert receive(folder, DIGEST, stream(*CHUNKS)) == 11


def test_an_upload_that_does_not_come_along_is_cut(folder: BlobFolder, monkeypatch) -> None:
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.05)

    async def trickle() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await asyncio.sleep(0.01)

    with pytest.raises(TooSlow, match="bytes a second"):
        receive(folder, DIGEST, trickle(), cap=10_000)
    assert files(folder) == []


def test_an_upload_without_a_byte_is_cut(folder: BlobFolder, monkeypatch) -> None:
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.05)

    async def nothing() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    with pytest.raises(TooSlow):
        receive(folder, DIGEST, nothing())


def test_large_uploads_are_written_in_pieces(folder: BlobFolder) -> None:
    content = os.urandom(700_001)
    pieces = [content[at : at + 65_536] for at in range(0, len(content), 65_536)]
    digest = hashlib.sha256(content).hexdigest()
    assert receive(folder, digest, stream(*pieces, b""), cap=1 << 20) == len(content)
    assert folder.path(digest).read_bytes() == content


def test_an_upload_that_breaks_off_leaves_nothing(folder: BlobFolder) -> None:
    with pytest.raises(ConnectionError):
        receive(folder, DIGEST, stream(b"hello ", fails=ConnectionError()))
    assert files(folder) == []


def test_a_wrong_upload_does_not_harm_the_right_one(folder: BlobFolder) -> None:
    receive(folder, DIGEST, stream(*CHUNKS))
    with pytest.raises(InvalidInput):
        receive(folder, DIGEST, stream(b"evil"))
    assert folder.path(DIGEST).read_bytes() == b"hello world"


def test_removing_twice_is_no_error(folder: BlobFolder) -> None:
    receive(folder, DIGEST, stream(*CHUNKS))
    folder.remove(DIGEST)
    folder.remove(DIGEST)
    assert files(folder) == []


def test_a_folder_that_cannot_be_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartupError, match=r"cannot write the blobs in .*: Not a directory"):
        BlobFolder(tmp_path / "file" / "blobs")


def test_an_upload_that_a_killed_server_left_is_removed_after_a_day(folder: BlobFolder) -> None:
    old, new = (folder.folder / "incoming" / name for name in ("old", "new"))
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    BlobFolder(folder.folder)
    assert files(folder) == [new]


def test_a_server_whose_clock_is_days_ahead_removes_nobodys_upload(
    folder: BlobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = folder.folder / "incoming" / "other"
    other.touch()
    ahead = time.time() + 2 * 86_400
    monkeypatch.setattr(time, "time", lambda: ahead)
    BlobFolder(folder.folder)
    assert files(folder) == [other]
