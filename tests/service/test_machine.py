"""A state machine: workers, people, time and accidents in any order, against a model.

Each call may arrive, arrive twice, arrive late (after calls that were sent later), or meet a
server that dies before one of its statements or before its commit; a claim's answer may be lost.
`pytest tests/service/test_machine.py -m slow --hypothesis-seed=random` explores.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, Phase, core, settings
from hypothesis.stateful import run_state_machine_as_test

from service.store.database import Database
from tests.service.conftest import emptied
from tests.service.machine import Machine
from tests.service.world import World


def storm(fresh: Callable[[], World], examples: int, steps: int, seed: int | None = 0) -> set[str]:
    """Runs the machine; returns what happened. A short one does not shrink what it finds.

    Args:
        fresh: makes a world.
        examples: how many runs.
        steps: of a run.
        seed: the same runs wherever the files lie, unlike `derandomize`; None leaves it to pytest.
    """
    Machine.seen.clear()
    shrinks = [Phase.shrink] if steps >= LONG else []
    chosen = core.global_force_seed if seed is None else seed
    with patch.object(core, "global_force_seed", chosen):
        run_state_machine_as_test(
            lambda: Machine(fresh()),
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                derandomize=False,
                phases=[Phase.generate, *shrinks],
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    return {what for what, times in Machine.seen.items() if times}


def files(template: Path, folder: Path) -> Callable[[], World]:
    """Makes worlds, each on a copy of the empty SQLite database."""

    def fresh() -> World:
        for old in folder.glob("machine.db*"):
            old.unlink()
        shutil.copy(template, folder / "machine.db")
        return World(Database(f"sqlite:///{folder / 'machine.db'}"))

    return fresh


LONG = 100  # steps
COMMON = {"granted", "fresh", "stale", "twice", "crashed", "late", "claimed again"}
RARE = {"again", "jumped", "stale claim", "granted RUNNING", "granted WAITING"}
RARE |= {"swept", "resumed below", "dying", "asha pause", "granted PAUSED"}


def test_the_rows_are_what_was_acknowledged(sqlite_template: Path, tmp_path: Path) -> None:
    assert COMMON - storm(files(sqlite_template, tmp_path), 6, 45) == set()


@pytest.mark.postgres
def test_the_rows_are_what_was_acknowledged_on_postgres(postgres_template: str) -> None:
    storm(lambda: World(Database(emptied(postgres_template))), 2, 40)


@pytest.mark.slow
@pytest.mark.nightly
def test_long_storms(sqlite_template: Path, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    wanted, seen = COMMON | RARE, set()
    if pytestconfig.getoption("--hypothesis-seed") is not None:
        storm(files(sqlite_template, tmp_path), 25, LONG, None)
        return
    for seed in range(8):  # two storms, and more until each rare thing has happened
        seen |= storm(files(sqlite_template, tmp_path), 10, LONG, seed)
        if seed and wanted <= seen:
            break
    assert wanted - seen == set()
