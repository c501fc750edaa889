"""`make mutants`: takes out each guard in a copy of the tree; the tests named must notice."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from tests.harness.process import ROOT
from tests.mutants.guards import GUARDS, Guard
from tests.mutants.trial import PACKAGES, failing

AT_ONCE: Final = 2


def main() -> int:
    """Prints a line per guard; returns 1 where a mutant lives or a test fails without one."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("words", nargs="*", help="only guards whose names contain one of these")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only each Nth of them")
    said = parser.parse_args()
    named = [g for g in GUARDS if not said.words or any(word in g.name for word in said.words)]
    chosen = named[:: said.every]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lmtune-mutants-") as folder:
        trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(AT_ONCE):
            trees.put(copy_tree(Path(folder) / str(number)))
        with borrowed(trees) as tree:
            if failed := failing(tree, sorted({test for guard in chosen for test in guard.tests})):
                sys.stdout.write(f"the tests fail without any mutant:\n{failed}\n")
                return 1
        with ThreadPoolExecutor(AT_ONCE) as threads:
            lines = threads.map(lambda guard: judge(trees, guard), chosen)
            alive = sum(show(guard, line) for guard, line in zip(chosen, lines, strict=True))
    seconds = time.monotonic() - began
    sys.stdout.write(f"mutants={len(chosen)} alive={alive} seconds={seconds:.0f}\n")
    return 1 if alive else 0


def copy_tree(folder: Path) -> Path:
    """Returns a copy of what the tests need."""
    folder.mkdir(parents=True)
    for name in (*PACKAGES, "pyproject.toml"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


@contextmanager
def borrowed(trees: SimpleQueue[Path]) -> Iterator[Path]:
    """Lends one of the trees."""
    tree = trees.get()
    try:
        yield tree
    finally:
        trees.put(tree)


def judge(trees: SimpleQueue[Path], guard: Guard) -> str | None:
    """Returns the first test that notices the mutant; None where it lives."""
    with borrowed(trees) as tree:
        file = tree / guard.file
        whole = file.read_text(encoding="utf-8")
        file.write_text(whole.replace(guard.old, guard.new), encoding="utf-8")
        try:
            return failing(tree, guard.tests)
        finally:
            file.write_text(whole, encoding="utf-8")


def show(guard: Guard, line: str | None) -> bool:
    """Prints what became of a guard's mutant; returns whether it lives."""
    test = "" if line is None else line.split(" - ")[0].split(" ", 1)[1]
    fate = "ALIVE" if line is None else f"killed by {test}"
    sys.stdout.write(f"{guard.name}: {fate}\n")
    sys.stdout.flush()
    return line is None


if __name__ == "__main__":
    sys.exit(main())
