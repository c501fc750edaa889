"""The folder of checkpoints and texts: files named by the hash of their content.

A file appears whole or not at all, and is durable before its row is written. Several servers of
one database share the folder.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from anyio import to_thread

from studies.errors import InvalidInput, StartupError, StorageFull, TooLarge, TooSlow

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_BROKEN_OFF: Final = 86_400.0  # an upload without a byte for this long has ended [s]
_BATCH: Final = 1 << 18  # of a stream, written at once [bytes]
# An upload that is slower than this, after its first seconds, only holds a place; assumptions.
SLOWEST: Final = 16_384  # [bytes/s]
GRACE_SECONDS: Final = 10.0
# Left free on the disk, where a database may lie beside the blobs; a twentieth of it at most.
RESERVE: Final = 256 << 20  # [bytes]; assumption


class BlobFolder:
    """Reads and writes blobs."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder; raises StartupError where it cannot be written."""
        self.folder = folder.absolute()
        try:
            (self.folder / "incoming").mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder / "incoming") as probe:
                now = os.fstat(probe.fileno()).st_mtime
        except OSError as error:
            raise StartupError(f"cannot write the blobs in {folder}: {error.strerror}") from None
        self._arriving = 0  # of all uploads that are under way [bytes]
        self._forget_broken_off(now)

    def _forget_broken_off(self, now: float) -> None:
        """Removes uploads that a server which was killed never ended; others' go on.

        Args:
            now: by the clock that dates the files [unix s]; this server's own may be a day ahead.
        """
        for file in (self.folder / "incoming").iterdir():
            with suppress(FileNotFoundError):
                if now - file.stat().st_mtime > _BROKEN_OFF:
                    file.unlink()

    def path(self, sha256: str) -> Path:
        """Returns where the blob of this hash lies."""
        return self.folder / sha256[:2] / sha256

    async def receive(
        self, sha256: str, chunks: AsyncIterator[bytes], cap: int, room: int | None = None
    ) -> int:
        """Stores a stream under its hash; returns its length [bytes].

        Args:
            sha256: the hash that the content must have.
            chunks: the content.
            cap: of this upload [bytes].
            room: for this and all other uploads that are under way [bytes]; None: no quota.

        Raises:
            TooLarge: more than `cap` bytes came.
            TooSlow: they come too slowly.
            StorageFull: there is no room, or the disk takes no more.
            InvalidInput: what came has another hash. Of all these nothing is kept.
        """
        with _full_disk():
            descriptor, name = tempfile.mkstemp(dir=self.folder / "incoming")
        incoming, digest, size = Path(name), hashlib.sha256(), 0
        try:
            with _full_disk(), os.fdopen(descriptor, "wb") as file:
                async for batch in _steady(chunks):
                    size += len(batch)
                    self._arriving += len(batch)
                    self._check(size, cap, room)
                    digest.update(batch)
                    await to_thread.run_sync(file.write, batch)
                await to_thread.run_sync(_flush, file)
            if digest.hexdigest() != sha256:
                raise InvalidInput.of("sha256", f"the content's hash is {digest.hexdigest()}")
            with _full_disk():
                await to_thread.run_sync(self._place, incoming, sha256)
        finally:
            self._arriving -= size
            incoming.unlink(missing_ok=True)
        return size

    def _check(self, size: int, cap: int, room: int | None) -> None:
        """Raises TooLarge or StorageFull where an upload of this size may not go on."""
        if size > cap:
            raise TooLarge(f"an upload may have {cap} bytes; see LMTUNE_MAX_BLOB_BYTES")
        if room is not None and self._arriving > room:
            raise StorageFull("no room for an upload: LMTUNE_MAX_BLOBS_BYTES is reached")
        disk = os.statvfs(self.folder)
        reserve = min(RESERVE, disk.f_blocks * disk.f_frsize // 20)
        if disk.f_bavail * disk.f_frsize < reserve:
            raise StorageFull("no room for an upload: the rest of the disk is the database's")

    def remove(self, sha256: str) -> None:
        """Unlinks a blob; one that is gone already is no error."""
        with suppress(FileNotFoundError):
            self.path(sha256).unlink()

    def _place(self, incoming: Path, sha256: str) -> None:
        target = self.path(sha256)
        target.parent.mkdir(exist_ok=True)
        incoming.replace(target)
        for folder in (target.parent, self.folder):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _flush(file: object) -> None:
    file.flush()  # type: ignore[attr-defined]
    os.fsync(file.fileno())  # type: ignore[attr-defined]


async def _steady(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yields a stream in larger pieces; raises TooSlow where it does not come along."""
    start, size, held = time.monotonic(), 0, bytearray()
    chunk: bytes | None = b""
    while chunk is not None:
        left = start + GRACE_SECONDS + size / SLOWEST - time.monotonic()
        try:
            async with asyncio.timeout(left):
                chunk = await anext(chunks, None)
        except TimeoutError:
            raise TooSlow(f"an upload must bring {SLOWEST} bytes a second") from None
        size += len(chunk or b"")
        held += chunk or b""
        if held and (chunk is None or len(held) >= _BATCH):
            yield bytes(held)
            held.clear()


@contextmanager
def _full_disk() -> Iterator[None]:
    """Raises StorageFull for what the system says where the disk takes no more."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise StorageFull(f"no room for an upload: {error.strerror}") from None
