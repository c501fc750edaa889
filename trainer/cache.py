"""The texts that studies train on, on this machine: fetched once, found by hash."""

from __future__ import annotations

import os
from pathlib import Path

from studies.client import WorkerClient
from studies.corpus import file_sha256
from studies.errors import LmtuneError
from studies.files import home
from trainer.patience import Patience


class TextCache:
    """A folder of texts under LMTUNE_HOME; several workers may share it."""

    def __init__(self, client: WorkerClient, patience: Patience) -> None:
        self._client, self._patience = client, patience
        self._verified: dict[str, tuple[int, int]] = {}  # by hash: time and size of the file

    def fetch(self, sha256: str) -> Path:
        """Returns the file with this content, downloaded if it is not here or is damaged.

        Raises:
            NotFound: the server has no such text.
            LmtuneError: another content came than was asked for.
        """
        path = home() / "cache" / "data" / sha256
        if self._is_whole(path, sha256):
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{sha256}.{os.getpid()}.partial")
        came = self._patience.call(lambda: self._client.download_data(sha256, partial))
        if came != sha256:
            partial.unlink()
            raise LmtuneError(f"the server sent another text than {sha256}")
        partial.replace(path)
        return path

    def _is_whole(self, path: Path, sha256: str) -> bool:
        """True for a file of this content; one that has not changed since is not read again."""
        if not path.exists():
            return False
        now = path.stat()
        mark = (now.st_mtime_ns, now.st_size)
        if self._verified.get(sha256) != mark and file_sha256(path) != sha256:
            return False
        self._verified[sha256] = mark
        return True
