"""What the database holds in the end: our rows, and Optuna's as plain Optuna reads them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa

from studies.spec import StudySpec
from tests.chaos.databases import look_into
from tests.chaos.model import Trained, undisturbed
from tests.harness.process import ROOT

__all__ = ["Rows", "look_into", "read", "reconcile"]
Row = Mapping[str, Any]
_JSON = ("spec", "params", "finish", "detail")


@dataclass(frozen=True)
class Theirs:
    """A trial as Optuna has it."""

    state: str
    value: float | None
    params: Mapping[str, Any]
    curve: Mapping[int, float]


@dataclass
class Rows:
    """Every row that the checker looks at, by what it belongs to; ids are ours."""

    studies: Sequence[Row]
    trials: Sequence[Row]
    attempts: Mapping[int, Sequence[Row]]  # of a trial, by number
    reports: Mapping[int, Sequence[Row]]  # of a trial, as they were stored
    checkpoints: Mapping[int, Sequence[Row]]
    events: Mapping[tuple[int, int | None], Sequence[Row]]  # of (study, trial number), in order
    theirs: Mapping[int, Theirs | None]  # Optuna's, by our trial's id
    expected: Mapping[int, tuple[Mapping[int, float], Trained]]  # undisturbed, by our trial's id
    differences: list[str] = field(default_factory=list)  # what reconcile says


def read(url: str) -> Rows:
    """Returns everything in a database."""
    engine = sa.create_engine(url)
    with engine.connect() as conn:
        studies = _all(conn, "lmtune_studies", "id")
        trials = _all(conn, "lmtune_trials", "id")
        attempts = _all(conn, "lmtune_attempts", "trial_id, attempt")
        reports = _all(conn, "lmtune_reports", "id")
        checkpoints = _all(conn, "lmtune_checkpoints", "trial_id, attempt, step")
        events = _all(conn, "lmtune_events", "id")
    engine.dispose()
    specs = {row["id"]: StudySpec.model_validate(row["spec"]) for row in studies}
    return Rows(
        studies,
        trials,
        _grouped(attempts, "trial_id"),
        _grouped(reports, "trial_id"),
        _grouped(checkpoints, "trial_id"),
        _grouped(events, "study_id", "trial"),
        _theirs(url, studies, trials),
        {row["id"]: _expected(specs[row["study_id"]], row) for row in trials},
    )


def reconcile(url: str, folder: Path) -> list[str]:
    """Returns what `lmtune-server reconcile` prints."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("LMTUNE_")}
    env = {**kept, "LMTUNE_HOME": str(folder / "home-0"), "LMTUNE_DATABASE_URL": url}
    command = [sys.executable, "-m", "service", "reconcile"]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    said = done.stdout.splitlines()
    return said or ([f"reconcile failed: {done.stderr[-500:]}"] if done.returncode else [])


def _all(conn: sa.Connection, table: str, order: str) -> list[Row]:
    found = conn.execute(sa.text(f"SELECT * FROM {table} ORDER BY {order}"))  # noqa: S608
    return [_decoded(row) for row in found.mappings()]


def _decoded(row: Row) -> Row:
    """SQLite gives JSON as text."""
    return {k: json.loads(v) if k in _JSON and isinstance(v, str) else v for k, v in row.items()}


def _grouped(found: Sequence[Row], *key: str) -> Mapping[Any, Sequence[Row]]:
    groups: dict[Any, list[Row]] = defaultdict(list)
    for row in found:
        groups[row[key[0]] if len(key) == 1 else tuple(row[k] for k in key)].append(row)
    return groups


def _expected(spec: StudySpec, row: Row) -> tuple[Mapping[int, float], Trained]:
    recipe = spec.recipe(row["params"], row["number"])
    return undisturbed(recipe.model_dump(mode="json", by_alias=True))


def _theirs(url: str, studies: Sequence[Row], trials: Sequence[Row]) -> Mapping[int, Theirs | None]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.RDBStorage(url)
    found: dict[tuple[int, int], Theirs] = {}
    for study in studies:
        for trial in optuna.load_study(study_name=study["name"], storage=storage).trials:
            seen = Theirs(trial.state.name, trial.value, trial.params, trial.intermediate_values)
            found[study["id"], trial.number] = seen
    storage.engine.dispose()
    return {row["id"]: found.get((row["study_id"], row["number"])) for row in trials}
