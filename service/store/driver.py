"""The SQLite library: the interpreter's own, or a newer one where that may not use WAL.

In WAL a commit waits for the disk once, with a rollback journal several times; libraries before
3.51.3 can damage a file in WAL (docs/decisions/0014-a-newer-sqlite.md). A process must use one
library only: closing a file takes away the locks that another one holds on it.
"""

from __future__ import annotations

import importlib
import sqlite3
from types import ModuleType
from typing import Any, Final

_FIXED: Final = {(3, 44): 6, (3, 50): 7}  # backports of 3.51.3's fix of the WAL-reset bug


def wal_is_safe(version: tuple[int, int, int]) -> bool:
    """True for a SQLite library without the WAL-reset bug (fixed in 3.51.3 and backports)."""
    backport = _FIXED.get(version[:2])
    return version >= (3, 51, 3) or (backport is not None and version[2] >= backport)


def _best() -> Any:
    if wal_is_safe(sqlite3.sqlite_version_info):
        return sqlite3
    try:
        newer: ModuleType = importlib.import_module("pysqlite3.dbapi2")
    except ImportError:  # no wheel for this machine: it works without, and slower
        return sqlite3
    return newer


driver: Final[Any] = _best()  # a DB-API module
JOURNAL: Final = "WAL" if wal_is_safe(driver.sqlite_version_info) else "PERSIST"
