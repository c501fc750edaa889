"""What a launcher does while its cluster refuses or does not answer."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from service.launcher.base import Lost
from service.launcher.keeper import End, Keeper, Slot, Unreachable, make_places
from service.launcher.slurm import SlurmLauncher, SlurmOptions

URL = "http://127.0.0.1:1"


@dataclass(frozen=True)
class Life:
    name: str
    created: float = 0.0


class Elsewhere(Keeper[Life]):
    """A launcher whose cluster answers for some of its workers only."""

    life_type: ClassVar[type[Life]] = Life

    def __init__(self, count: int, home: Path) -> None:
        super().__init__(make_places("there", count), home, URL, idle=0)
        self.refused, self.launches = False, 0
        self.deaf: set[str] = set()  # slots whose workers cannot be reached
        self.asked: list[str] = []
        self.ended: list[str] = []

    def _launch(self, slots: Mapping[str, Slot[Life]]) -> dict[str, Life]:
        self.launches += 1
        if self.refused:
            raise Unreachable("no such partition")
        return {name: Life(name) for name in slots}

    def _look(self, life: Life) -> End | None:
        return None

    def _ask(self, life: Life) -> None:
        self._reach(life)
        self.asked.append(life.name)

    def _end(self, life: Life) -> None:
        self._reach(life)
        self.ended.append(life.name)

    def _reach(self, life: Life) -> None:
        if life.name.rpartition("-")[0] in self.deaf:
            raise Unreachable("no answer")


def names(launcher: Keeper[Life]) -> list[str]:
    return [slot.life.name for slot in launcher._slots if slot.life]


def test_a_start_that_is_refused_is_tried_again_ever_later(tmp_path: Path, caplog) -> None:
    launcher = Elsewhere(2, tmp_path)
    launcher.refused = True
    for _ in range(5):
        assert launcher.keep(2) == []
    assert launcher.launches == 1
    assert [slot.deaths for slot in launcher._slots] == [1, 1]
    assert caplog.text.count("no such partition") == 1
    launcher.refused = False
    for slot in launcher._slots:
        slot.next_start = 0.0
    launcher.keep(2)
    assert len(names(launcher)) == 2


def test_at_the_end_one_that_cannot_be_reached_holds_no_other_up(tmp_path: Path) -> None:
    launcher = Elsewhere(3, tmp_path)
    launcher.keep(3)
    first, second, third = names(launcher)
    launcher.deaf = {"there1"}
    late = "it did not end in time"
    assert launcher.stop(0) == [Lost(first, late), Lost(third, late)]
    assert launcher.asked == launcher.ended == [first, third]
    assert names(launcher) == [second]  # the next server looks after it


def test_a_log_is_shown_of_our_own_workers_only(tmp_path: Path) -> None:
    launcher = Elsewhere(1, tmp_path)
    launcher._log_path("there0").write_text("worker there0-before on cpu is ready\n")
    assert launcher.log("there0-before")
    assert launcher.log("there0-theirs") is None  # of another server, whose places are alike
    launcher.keep(1)
    (name,) = names(launcher)
    assert launcher.log(name)


@pytest.fixture
def refusing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Slurm whose sbatch refuses every job; returns the file that it notes each call in."""
    pytest.importorskip("submitit", reason="pip install 'lmtune[slurm]'")
    calls, folder = tmp_path / "calls", tmp_path / "bin"
    folder.mkdir()
    for program, does in (
        ("sbatch", f"echo call >> {calls}; echo 'invalid partition' >&2; exit 1"),
        ("squeue", "exit 0"),
    ):
        (folder / program).write_text(f"#!/bin/sh\n{does}\n")
        (folder / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return calls


def test_a_job_that_sbatch_refuses_leaves_nothing_behind(refusing: Path, tmp_path: Path) -> None:
    options = SlurmOptions(partition="no")
    home = tmp_path / "home"
    launcher = SlurmLauncher(make_places("slurm", 8), URL, home, options, (sys.executable,))
    for _ in range(5):
        assert launcher.keep(8) == []
    assert refusing.read_text().count("call") == 1
    assert [path for path in (home / "slurm").rglob("*") if path.is_file()] == []
