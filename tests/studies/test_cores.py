"""Processes on the CPU share the cores that somebody left them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from studies import cores
from studies.cores import thread_limit


@pytest.fixture(autouse=True)
def six(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six cores, no quota."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.setattr(cores, "_QUOTA", tmp_path / "cpu.max")


def threads(processes: int) -> str | None:
    return thread_limit(processes).get("OMP_NUM_THREADS")


def test_a_process_that_is_alone_is_pytorchs_affair_and_more_share() -> None:
    assert [threads(n) for n in (1, 2, 4, 9)] == [None, "3", "1", "1"]


def test_what_is_said_goes_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert thread_limit(2) == {}


@pytest.mark.parametrize(
    ("said", "found"),
    [("max 100000", None), ("250000 100000", "2"), ("50000 100000", "1"), ("", None)],
)
def test_a_containers_quota_is_heard(said: str, found: str | None, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(said)
    assert threads(1) == found


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux has affinity")
def test_affinity_is_heard() -> None:
    program = (
        "import os; os.environ.pop('OMP_NUM_THREADS', None)\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from studies.cores import thread_limit; print(thread_limit(2))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "{'OMP_NUM_THREADS': '1'}\n"
