"""A SQLite file is its owner's only, and lies on a disk of this machine."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from service.store import files
from service.store.database import Database
from studies.errors import StartupError


def test_a_new_file_is_its_owners_only(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'new.db'}")
    database.close()
    assert stat.S_IMODE((tmp_path / "new.db").stat().st_mode) == 0o600
    assert re.fullmatch(r"SQLite 3\.[0-9.]+, journal (WAL|PERSIST)", database.kind)


def test_a_file_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "old.db").touch(0o640)
    Database(f"sqlite:///{tmp_path / 'old.db'}").close()
    assert stat.S_IMODE((tmp_path / "old.db").stat().st_mode) == 0o640


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs"])
def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch, kind) -> None:
    mounts = [("/", "ext4"), (str(tmp_path), kind), (str(tmp_path / "local"), "ext4")]
    said = [SimpleNamespace(mountpoint=where, fstype=what) for where, what in mounts]
    monkeypatch.setattr(files.psutil, "disk_partitions", lambda all: said)
    with pytest.raises(StartupError, match=f"network file system .{kind}."):
        Database(f"sqlite:///{tmp_path / 'a.db'}")
    (tmp_path / "local").mkdir()
    Database(f"sqlite:///{tmp_path / 'local' / 'a.db'}").close()
    monkeypatch.setattr(files.psutil, "disk_partitions", lambda all: [])
    Database(f"sqlite:///{tmp_path / 'a.db'}").close()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_without_a_file_is_refused(url) -> None:
    with pytest.raises(StartupError, match="names no file"):
        Database(url)
