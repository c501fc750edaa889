"""A read side without a server: studies made up by a formula, the same each time."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta

from service.dispatch.standing import Standing
from service.dispatch.watching import Changes, Snapshot
from service.figures import StudyData, TrialData
from service.figures.data import AttemptData, LoadData
from studies import wire
from studies.changes import EventView
from studies.errors import NotFound
from studies.fleet import WorkerCount
from studies.spec import parse_spec
from studies.trial import Desired, Outcome, StudyState, TrialState

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
METRICS = {"train_loss": 0.94, "bits_per_byte": 1.44, "learning_rate": 1e-3, "gradient_norm": 0.8}


def document(name: str, trials: int = 16) -> dict:
    return {
        "name": name,
        "description": "An LSTM on the documentation that every CPython carries.",
        "data": {"builtin": "stdlib", "tokenizer": "bytes"},
        "model": {"kind": "lstm", "embedding_dim": 128, "hidden_dim": 256},
        "train": {"steps": 300, "batch_size": 32, "sequence_length": 64, "evaluate_every": 30},
        "search": {
            "learning_rate": {"log": [1e-4, 1e-1]},
            "regularizer": {"choice": ["none", "l1", "l2"]},
            "lambda": {"log": [1e-8, 1e-3], "when": {"regularizer": ["l1", "l2"]}},
            "dropout": {"uniform": [0.0, 0.5]},
            "precision": {"choice": ["fp32", "bf16"]},
        },
        "sampler": {"kind": "tpe", "seed": 7},
        "scheduler": {"kind": "asha", "min_steps": 60},
        "budget": {"trials": trials, "wall_time": "10m"},
    }


def params(number: int) -> dict:
    draw = random.Random(number)
    values = {
        "learning_rate": 10 ** draw.uniform(-4, -1),
        "regularizer": draw.choice(["none", "l1", "l2"]),
        "dropout": draw.uniform(0.0, 0.5),
        "precision": draw.choice(["fp32", "bf16"]),
    }
    if values["regularizer"] != "none":
        values["lambda"] = 10 ** draw.uniform(-8, -3)
    return values


def loss(values: dict, step: int) -> float:
    if values["learning_rate"] > 0.06 and step > 120:
        return math.nan
    ideal = (math.log10(values["learning_rate"]) + 2.4) ** 2
    floor = 1.55 + 0.22 * ideal + 0.4 * (values["dropout"] - 0.15) ** 2
    floor += 0.12 * (values["regularizer"] == "l1")
    return floor + 3.6 * math.exp(-step / 55) + 0.015 * math.sin(step * 7 + floor * 90)


class StandIn:
    """One study of each name; `done` trials are over, one more runs up to `step`."""

    def __init__(self, names=("quickstart",), done: int = 11, step: int = 150, trials: int = 16):
        self.names, self.done, self.step, self.budget = list(names), done, step, trials
        self.state, self.revision, self.calls = StudyState.RUNNING, 1, 0
        self.description: str | None = None
        self.seed: int | None = None  # of every trial; None: each has its own
        self.log = "epoch 1\nthe last line of its log\n"

    def _state(self, number: int) -> TrialState:
        values = params(number)
        if number >= self.done:
            return TrialState.RUNNING if self.state == "RUNNING" else TrialState.PAUSED
        if math.isnan(loss(values, 300)):
            return TrialState.FAILED
        return TrialState.PRUNED if loss(values, 300) > 1.76 else TrialState.COMPLETE

    def _last(self, number: int) -> int:
        ends = {TrialState.COMPLETE: 300, TrialState.PRUNED: 90, TrialState.FAILED: 150}
        return ends.get(self._state(number), self.step)

    def _curve(self, number: int) -> list[tuple[int, float]]:
        values = params(number)
        return [(step, loss(values, step)) for step in range(30, self._last(number) + 1, 30)]

    def _count(self) -> int:
        return min(self.done + 1, self.budget)

    def study(self, name: str) -> wire.StudyView:
        if name not in self.names:
            raise NotFound(f"there is no study {name!r}")
        said = document(name, self.budget)
        if self.description is not None:
            said["description"] = self.description
        if self.seed is not None:
            said["train"]["seed"] = self.seed
        states = [self._state(number) for number in range(self._count())]
        best = min(
            ((t.value, t.number) for t in self._data() if t.state == "COMPLETE"),
            default=None,
        )
        return wire.StudyView(
            name=name,
            description=said["description"],
            state=self.state,
            reason=None if self.state == "RUNNING" else "person",
            archived=False,
            created_at=NOW - timedelta(minutes=4),
            ended_at=None,
            running_seconds=141.0,
            spec=parse_spec(said).document(),
            counts={state: states.count(state) for state in set(states)},
            slots=len(states),
            best=wire.BestTrial(number=best[1], value=best[0]) if best else None,
            revision=self.revision,
        )

    def studies(self, archived, cursor, limit, search="", state=None) -> wire.Page[wire.StudyView]:
        views = [self.study(name) for name in self.names if search in name]
        return wire.Page(items=[v for v in views if state in (None, v.state)], next=None)

    @property
    def sparks(self):
        return self

    @property
    def outlays(self):
        return self

    def of(self, name: str, direction: str | None = None):
        return [(1, 2.5), (3, 2.1), (9, 2.1)] if direction else 5_025.0

    @property
    def watch(self):
        return self

    def snapshot(self, name: str) -> Snapshot:
        self.calls += 1
        spec = parse_spec(self.study(name).spec)
        return Snapshot(self.cursor(), StudyData(self._data(), spec.space, baseline=3.31))

    def attempts(self, name: str) -> list[AttemptData]:
        return [
            AttemptData(t.number, 1, "cpu-0", t.started, t.ended, t.ended and "ok", 0)
            for t in self._data()
        ]

    def loads(self, name: str) -> list[LoadData]:
        started = [(t.number, t.started) for t in self._data() if t.started]
        return [LoadData(number, "cpu", began, 4e4, 2.0**29) for number, began in started]

    def changes(self, name: str, tick: int | None) -> Changes:
        changed = self._data()[-1:] if tick is not None else []
        return Changes(self.cursor(), 0, changed)

    def since(self, name: str, cursor) -> Changes:
        return Changes(self.cursor(), 0, self._data())

    def cursor(self):
        return self.revision, self.done * 10 + self.step // 30

    def _data(self) -> list[TrialData]:
        made = []
        for number in range(self._count()):
            state, curve = self._state(number), tuple(self._curve(number))
            over = state in (TrialState.COMPLETE, TrialState.PRUNED)
            value = curve[-1][1] if over else None
            begun = NOW - timedelta(seconds=14 * (self._count() - number))
            made.append(
                TrialData(
                    number=number,
                    state=state,
                    params=params(number),
                    value=value,
                    curve=curve,
                    spent=tuple((step * 2_048, step * 0.04) for step, _ in curve),
                    step=curve[-1][0] if curve else 0,
                    max_step=300,
                    diverged=state is TrialState.FAILED,
                    started=begun,
                    ended=begun + timedelta(seconds=13) if state.terminal else None,
                )
            )
        return made

    def trial(self, name: str, number: int) -> wire.TrialDetail:
        spec = parse_spec(self.study(name).spec)
        if not 0 <= number < self._count():
            raise NotFound(f"{name!r} has no trial {number}")
        data = self._data()[number]
        failed = data.state is TrialState.FAILED
        begun = NOW - timedelta(seconds=14 * (self._count() - number))
        return wire.TrialDetail(
            study=name,
            number=number,
            state=data.state,
            desired=Desired.RUN,
            reason="diverged: the loss is not finite at step 150" if failed else None,
            params=dict(data.params),
            value=data.value,
            step=data.curve[-1][0] if data.curve else 0,
            max_step=300,
            attempt=1,
            worker=None if data.state.terminal else "cpu-0",
            created_at=begun,
            started_at=begun,
            ended_at=begun + timedelta(seconds=13) if data.state.terminal else None,
            recipe=spec.recipe(data.params, number),
            curve=[
                wire.Point(
                    step=step,
                    attempt=1,
                    metrics={"validation_loss": value, **METRICS, "train_loss": value * 0.94},
                    tokens=step * 2_048,
                    wall_ms=step * 40,
                )
                for step, value in data.curve
            ],
            attempts=[
                wire.AttemptView(
                    attempt=1,
                    worker="cpu-0",
                    started_at=begun,
                    ended_at=begun + timedelta(seconds=13) if data.state.terminal else None,
                    outcome=Outcome.OK if data.state is TrialState.COMPLETE else None,
                    reason=None,
                    start_step=0,
                    environment={"device": "cpu", "torch": "2.13.0", "emulated": False},
                )
            ],
        )

    def standing(self, name: str, number: int) -> Standing:
        complete = self._data()[number].state is TrialState.COMPLETE
        return Standing(2 if complete else None, 7, 300 if complete else None, self.log)

    def trials(self, name, state=None, cursor=None, limit=1000) -> wire.Page[wire.TrialView]:
        items = [self.trial(name, number) for number in range(self._count())]
        views = [wire.TrialView.model_validate(item.model_dump()) for item in items]
        return wire.Page(items=views, next=None)

    def best(self, name: str) -> wire.TrialDetail:
        view = self.study(name)
        if view.best is None:
            raise NotFound("no trial is complete yet")
        return self.trial(name, view.best.number)

    def importances(self, name: str, brushes: tuple[str, ...] = ()) -> dict[str, float]:
        known = {"learning_rate": 0.71, "regularizer": 0.13, "dropout": 0.09, "precision": 0.02}
        return {"dropout": 0.8} if brushes else known if self.done > 4 else {}

    def baseline(self, name: str) -> float | None:
        return 3.31

    def history(self, name: str, cursor=None, limit=100) -> wire.Page[EventView]:
        said = {"trials": [8, self.budget], "learning_rate": [{"log": [1e-4, 1.0]}, None]}
        made = [
            ("enqueued", 3, {"params": params(3)}),
            ("budget_changed", None, {"changes": said}),
            ("study_paused", None, {"reason": "person"}),
            ("study_running", None, {"reason": None}),
        ]
        items = [
            EventView(id=9 - i, at=NOW, kind=kind, trial=trial, detail=detail)
            for i, (kind, trial, detail) in enumerate(made)
        ]
        return wire.Page(items=items, next=None)

    def data(self) -> list[wire.DataView]:
        return [wire.DataView(sha256="a" * 64, name="corpus.txt", bytes=12_345, created_at=NOW)]

    def workers(self, limit=200, *, study=None) -> list[wire.WorkerView]:
        busy = self.state == "RUNNING"
        return [
            wire.WorkerView(
                id=1,
                name="cpu-0",
                host="box",
                pid=4711,
                device="cpu",
                state="busy" if busy else "idle",
                study=self.names[0] if busy and self.names else None,
                trial=self.done if busy and self.names else None,
                registered_at=NOW - timedelta(minutes=5),
                seen_at=NOW,
            )
        ]

    def worker_counts(self) -> list[WorkerCount]:
        return [WorkerCount(device=w.device, state=w.state, workers=1) for w in self.workers()]
