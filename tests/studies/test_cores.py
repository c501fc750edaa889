"""Cores that a process may use are fewer than the machine has where somebody said so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from studies import cores
from studies.cores import usable_cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux has affinity")
def test_affinity_is_heard() -> None:
    own = min(os.sched_getaffinity(0))
    program = "import os; os.sched_setaffinity(0, {%d})\nfrom studies.cores import usable_cores"
    ask = [sys.executable, "-c", program % own + "; print(usable_cores())"]
    assert subprocess.run(ask, capture_output=True, text=True, check=True).stdout == "1\n"


@pytest.mark.parametrize(
    ("said", "found"), [("max 100000", 6), ("250000 100000", 2), ("50000 100000", 1), ("", 6)]
)
def test_a_quota_is_heard(
    said: str, found: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text(said)
    monkeypatch.setattr(cores, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    assert usable_cores() == found
    monkeypatch.setattr(cores, "_QUOTA", tmp_path / "none")
    assert usable_cores() == 6
