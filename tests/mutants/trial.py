"""A mutant's tests, in a process forked off one that has imported the installed packages."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.harness.process import ROOT

PACKAGES: Final = ("studies", "service", "trainer", "tests")
PRELOADED: Final = ["pytest", "hypothesis", "optuna", "sqlalchemy.orm", "fastapi", "httpx", "rich"]
SECONDS: Final = 300  # for the tests of one mutant; assumption: a hundred times what they take


def failing(tree: Path, tests: Sequence[str]) -> str | None:
    """Returns pytest's line of the first of these tests that fails in the tree; None if none does.

    Raises:
        RuntimeError: pytest found no such test, could not begin, or took too long.
    """
    said = tree / "said"
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(PRELOADED)
    process = forks.Process(target=run_tests, args=(tree, list(tests), said))
    process.start()
    process.join(SECONDS)
    if process.exitcode is None:
        process.kill()
    if process.exitcode == 0:
        return None
    printed = said.read_text(encoding="utf-8")
    lines = [line for line in printed.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if process.exitcode != 1 or not lines:
        raise RuntimeError(f"pytest ended with {process.exitcode}:\n{printed}")
    return lines[0]


def run_tests(tree: Path, tests: list[str], said: Path) -> None:
    """Runs tests of the tree, in a process that has the installed packages but none of ours."""
    sys.dont_write_bytecode = True
    for name in [name for name in sys.modules if name.split(".")[0] in PACKAGES]:
        del sys.modules[name]
    sys.path[:] = [str(tree), *(path for path in sys.path if path not in ("", str(ROOT)))]
    os.chdir(tree)
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    options = [
        "-W",
        "ignore::pytest.PytestAssertRewriteWarning",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "not postgres",
        "--tb=no",
        "-rfE",
    ]
    sys.exit(pytest.main([*options, *tests]))
