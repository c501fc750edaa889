"""The folder of checkpoints and texts: files named by the hash of their content.

A file appears whole or not at all, and is durable before its row is written. Several servers of
one database share the folder.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from anyio import to_thread

from studies.errors import InvalidInput, StartupError, StorageFull, TooLarge

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_BROKEN_OFF: Final = 86_400.0  # an upload without a byte for this long has ended [s]


class BlobFolder:
    """Reads and writes blobs."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder; raises StartupError where it cannot be written."""
        self.folder = folder.absolute()
        try:
            (self.folder / "incoming").mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.folder / "incoming").close()
        except OSError as error:
            raise StartupError(f"cannot write the blobs in {folder}: {error.strerror}") from None
        self._forget_broken_off()

    def _forget_broken_off(self) -> None:
        """Removes uploads that a server which was killed never ended; others' go on."""
        for file in (self.folder / "incoming").iterdir():
            with suppress(FileNotFoundError):
                if time.time() - file.stat().st_mtime > _BROKEN_OFF:
                    file.unlink()

    def path(self, sha256: str) -> Path:
        """Returns where the blob of this hash lies."""
        return self.folder / sha256[:2] / sha256

    async def receive(self, sha256: str, chunks: AsyncIterator[bytes], cap: int) -> int:
        """Stores a stream under its hash; returns its length [bytes].

        Raises:
            TooLarge: more than `cap` bytes came.
            StorageFull: the disk takes no more.
            InvalidInput: what came has another hash; nothing is kept.
        """
        descriptor, name = tempfile.mkstemp(dir=self.folder / "incoming")
        incoming, digest, size = Path(name), hashlib.sha256(), 0
        try:
            with os.fdopen(descriptor, "wb") as file:
                async for chunk in chunks:
                    size += len(chunk)
                    if size > cap:
                        raise TooLarge(f"an upload may have {cap} bytes; see LMTUNE_MAX_BLOB_BYTES")
                    digest.update(chunk)
                    await to_thread.run_sync(file.write, chunk)
                await to_thread.run_sync(_flush, file)
            if digest.hexdigest() != sha256:
                raise InvalidInput.of("sha256", f"the content's hash is {digest.hexdigest()}")
            await to_thread.run_sync(self._place, incoming, sha256)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise StorageFull(f"no room for an upload: {error.strerror}") from None
        finally:
            incoming.unlink(missing_ok=True)
        return size

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
