"""Fills a database with a study of finished trials, in lmtune's rows and Optuna's alike.

Bulk inserts, since the real way takes minutes for 10,000 trials; `reconcile` must find nothing.
"""

from __future__ import annotations

import math
import random
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from optuna.distributions import distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import TrialState as OptunaState

from service.dispatch.context import Context
from service.dispatch.studies import open_study
from service.leases import LeaseTimes
from service.reconcile import differences
from service.store import studies, tables
from service.store.database import Database, Row, Tx
from service.store.migrate import migrate
from service.tuning.distributions import distribution
from studies.spec import StudySpec, parse_spec
from studies.wire import ReportItem

AT_ONCE = 1_000  # trials of one transaction


def study_file(name: str, sampler: str, reports: int) -> dict[str, Any]:
    """The benchmarks' study: two searched knobs, a report at each step, no end."""
    return {
        "name": name,
        "data": {"builtin": "stdlib"},
        "train": {"steps": reports, "evaluate_every": 1},
        "search": {
            "learning_rate": {"log": [1e-4, 1e-1]},
            "dropout": {"uniform": [0.0, 0.5]},
        },
        "sampler": {"kind": sampler, "seed": 1},
        "budget": {"trials": 1_000_000},
    }


def fill(url: str, document: dict[str, Any], trials: int, reports: int = 10) -> None:
    """Makes the study with so many COMPLETE trials in the database at `url`.

    Raises:
        AssertionError: lmtune's rows and Optuna's differ afterwards.
    """
    database = Database(url)
    try:
        migrate(database)
        spec = parse_spec(document)
        ctx = Context(database, LeaseTimes(60))
        database.write(lambda tx: open_study(tx, ctx, spec))
        _add(database, spec, range(trials), reports)
        found = differences(database)
        assert not found, found[:5]
    finally:
        database.close()


def fill_more(url: str, document: dict[str, Any], numbers: range, reports: int = 10) -> None:
    """Adds COMPLETE trials of these numbers to a study that is there."""
    database = Database(url)
    try:
        _add(database, parse_spec(document), numbers, reports)
    finally:
        database.close()


def _add(database: Database, spec: StudySpec, numbers: range, reports: int) -> None:
    study = database.read(lambda conn: studies.by_name(conn, spec.name))
    worker = database.write(_worker)
    for first in range(numbers.start, numbers.stop, AT_ONCE):
        some = range(first, min(first + AT_ONCE, numbers.stop))
        database.write(lambda tx, n=some: _Batch(tx, spec, study, worker, reports).insert(n))


def _worker(tx: Tx) -> int:
    known = sa.select(tables.workers.c.id).where(tables.workers.c.name == "fill")
    if (found := tx.conn.execute(known).scalar_one_or_none()) is not None:
        return int(found)
    facts = {"name": "fill", "host": "bench", "pid": 1, "device": "cpu", "code_hash": "bench"}
    seen = {"protocol": 1, "registered_at": tx.now, "seen_at": tx.now, "seen_t": tx.t}
    added = tx.conn.execute(tables.workers.insert().values(**facts, **seen, gone=True))
    return int(added.inserted_primary_key[0])


def _item(step: int, loss: float) -> ReportItem:
    return ReportItem(
        step=step, metrics={"validation_loss": loss}, tokens=4_096 * step, wall_ms=250 * step
    )


class _Batch:
    """Some trials of a study, written table by table."""

    def __init__(self, tx: Tx, spec: StudySpec, study: Row, worker: int, reports: int) -> None:
        self.tx, self.spec, self.study, self.worker = tx, spec, study, worker
        self.steps = range(1, reports + 1)

    def insert(self, numbers: range) -> None:
        """Writes the trials of these numbers."""
        params = {number: self._params(number) for number in numbers}
        theirs = self._optuna_trials(numbers)
        self._optuna_rows(theirs, params)
        ours = self._trials(theirs, params)
        self._attempts(ours)
        self._reports(ours, params)
        self._events(numbers)
        revision = self.study.revision + numbers.stop
        studies = tables.studies.update().where(tables.studies.c.id == self.study.id)
        self.tx.conn.execute(studies.values(revision=revision))

    def _params(self, number: int) -> dict[str, float]:
        draw = random.Random(number)
        return {
            "learning_rate": math.exp(draw.uniform(math.log(1e-4), math.log(1e-1))),
            "dropout": draw.uniform(0.0, 0.5),
        }

    def _loss(self, params: dict[str, float], step: int) -> float:
        far = math.log10(params["learning_rate"] / 3e-3)
        return 2.0 + 0.3 * far**2 + 0.2 * params["dropout"] + 1.0 / step

    def _optuna_trials(self, numbers: range) -> dict[int, int]:
        """Returns Optuna's id of each number."""
        table = models.TrialModel.__table__
        now = datetime.now()  # noqa: DTZ005 - as Optuna writes it
        common = {"study_id": self.study.optuna_id, "state": OptunaState.COMPLETE}
        rows = [
            {"number": n, "datetime_start": now, "datetime_complete": now, **common}
            for n in numbers
        ]
        added = sa.insert(table).returning(table.c.number, table.c.trial_id)
        return dict(self.tx.conn.execute(added, rows).all())

    def _optuna_rows(self, ids: dict[int, int], params: dict[int, dict[str, float]]) -> None:
        text = {p.name: distribution_to_json(distribution(p)) for p in self.spec.space}
        values, between, chosen = [], [], []
        for number, trial_id in ids.items():
            curve = [self._loss(params[number], step) for step in self.steps]
            stored, kind = models.TrialValueModel.value_to_stored_repr(curve[-1])
            one = {"trial_id": trial_id, "objective": 0}
            values.append({**one, "value": stored, "value_type": kind})
            for step, loss in zip(self.steps, curve, strict=True):
                model = models.TrialIntermediateValueModel
                stored, kind = model.intermediate_value_to_stored_repr(loss)
                point = {"trial_id": trial_id, "step": step}
                stored_as = {"intermediate_value": stored, "intermediate_value_type": kind}
                between.append({**point, **stored_as})
            for name, value in params[number].items():
                knob = {"trial_id": trial_id, "param_name": name, "param_value": value}
                chosen.append({**knob, "distribution_json": text[name]})
        self._many(models.TrialValueModel.__table__, values)
        self._many(models.TrialIntermediateValueModel.__table__, between)
        self._many(models.TrialParamModel.__table__, chosen)

    def _trials(
        self, theirs: dict[int, int], params: dict[int, dict[str, float]]
    ) -> dict[int, int]:
        """Returns our id of each number."""
        now, last = self.tx.now, self.steps[-1]
        common = {"study_id": self.study.id, "state": "COMPLETE", "attempt": 1}
        common |= {"step": last, "max_step": last, "progress_step": last}
        common |= {"created_at": now, "started_at": now, "ended_at": now}
        rows = [
            {
                "number": number,
                "revision": self.study.revision + number + 1,
                "optuna_id": optuna_id,
                "params": params[number],
                "value": self._loss(params[number], last),
                **common,
            }
            for number, optuna_id in theirs.items()
        ]
        added = tables.trials.insert().returning(tables.trials.c.number, tables.trials.c.id)
        return dict(self.tx.conn.execute(added, rows).all())

    def _attempts(self, ours: dict[int, int]) -> None:
        now = self.tx.now
        common = {"attempt": 1, "worker_id": self.worker, "claim_seq": 0, "lease_hash": "filled"}
        common |= {"start_step": 0, "started_at": now, "ended_at": now, "outcome": "ok"}
        self._many(tables.attempts, [{"trial_id": i, **common} for i in ours.values()])

    def _reports(self, ours: dict[int, int], params: dict[int, dict[str, float]]) -> None:
        rows = [
            {
                "study_id": self.study.id,
                "trial_id": trial_id,
                "attempt": 1,
                "step": step,
                "value": (loss := self._loss(params[number], step)),
                "body": _item(step, loss).canonical(),
                "decision": "continue",
            }
            for number, trial_id in ours.items()
            for step in self.steps
        ]
        self._many(tables.reports, rows)

    def _events(self, numbers: range) -> None:
        rows = [
            {"at": self.tx.now, "study_id": self.study.id, "trial": n, "kind": kind, "detail": {}}
            for n in numbers
            for kind in ("waiting", "running", "complete")
        ]
        self._many(tables.events, rows)

    def _many(self, table: Any, rows: list[dict[str, Any]]) -> None:
        self.tx.conn.execute(sa.insert(table), rows)
