"""Each guard's text is where its row says; slow: without it, its tests fail."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.harness.process import ROOT
from tests.mutants.guards import GUARDS, Guard

EVERY = int(os.environ.get("LMTUNE_MUTANTS", "1"))  # only each so many-th of them


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_a_guard_is_where_its_row_says(guard: Guard) -> None:
    assert (ROOT / guard.file).read_text(encoding="utf-8").count(guard.old) == 1


@pytest.mark.slow
def test_every_mutant_is_killed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.mutants", f"--every={EVERY}"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"mutants={len(GUARDS[::EVERY])} alive=0" in done.stdout
