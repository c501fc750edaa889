"""What must hold of a SQLite file before it is opened."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from studies.errors import StartupError

# Their locks do not hold between machines, or are lost with a connection: sqlite.org/howtocorrupt.
_NETWORK: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "fuse.glusterfs"}
    | {"fuse.sshfs", "fuse.s3fs", "fuse.rclone", "davfs", "fuse.davfs2", "lustre"}
)


def prepare(file: str | None) -> None:
    """Makes the file, for its owner only, where it is missing.

    Raises:
        StartupError: no file is named, or it would lie on a network file system.
    """
    if not file or file == ":memory:":
        raise StartupError("LMTUNE_DATABASE_URL names no file; write sqlite:///FILE")
    path = Path(file).resolve()
    kind = _file_system(path)
    if kind in _NETWORK:
        raise StartupError(
            f"{path} lies on a network file system ({kind}), where SQLite loses data; "
            "put it on a local disk, or use PostgreSQL"
        )
    with suppress(OSError):  # what is wrong with the folder, opening the database says
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))


def _file_system(path: Path) -> str:
    """Returns the type of the file system that holds the path; empty where nobody says it."""
    mounts = psutil.disk_partitions(all=True)
    over = [m for m in mounts if path.is_relative_to(m.mountpoint)]
    return max(over, key=lambda m: len(m.mountpoint)).fstype if over else ""
