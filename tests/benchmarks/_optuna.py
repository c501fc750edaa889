"""Optuna as its users run it in parallel: processes that ask, report and tell on one storage.

`python -m tests.benchmarks._optuna ORDER` is one process per client, forked so that 200 of them
share Optuna's code in memory; they begin together, once each has stored a report.
`python -m tests.benchmarks._optuna proxy URL PORT` is Optuna's own gRPC proxy.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import sys
import threading
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import Any, Final

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, GrpcStorageProxy, RDBStorage, run_grpc_proxy_server

from tests.benchmarks._load import Seen

optuna.logging.set_verbosity(optuna.logging.CRITICAL)


@dataclass(frozen=True)
class OptunaOrder:
    """What a process of Optuna clients is to do."""

    storage: str  # a database URL, or grpc:PORT
    study: str
    sampler: str
    reports: int  # of a trial
    clients: int
    seconds: float  # measured, after the warm-up
    warm: float


OPEN_SECONDS: Final = 90.0  # for all clients to open their study, and to end their last call
LAST_CALL_SECONDS: Final = 10.0  # for the call that is under way when the time is over
UNFINISHED: Final = {
    "claim": [],
    "report": [],
    "finish": [],
    "statuses": {"unfinished": 1},
    "cpu": 0.0,
}


def open_storage(where: str) -> BaseStorage:
    """Returns the storage as Optuna ships it."""
    if where.startswith("grpc:"):
        return GrpcStorageProxy(host="127.0.0.1", port=int(where.removeprefix("grpc:")))
    return RDBStorage(where)


def make_sampler(name: str) -> BaseSampler:
    """Returns Optuna's sampler of this name, with its defaults."""
    return TPESampler() if name == "tpe" else RandomSampler()


class Client:
    """One process with a study of its own."""

    def __init__(self, order: OptunaOrder, together: Barrier) -> None:
        self.order, self.seen = order, Seen(seconds=order.seconds)
        self.study = optuna.load_study(
            study_name=order.study,
            storage=open_storage(order.storage),
            sampler=make_sampler(order.sampler),
        )
        self.starts, self.over = 0.0, math.inf
        self.warmed_up(together)
        self.starts = time.perf_counter() + order.warm
        self.over = self.starts + order.seconds

    def warmed_up(self, together: Barrier) -> None:
        """Waits until every client has stored a report: none is measured while others start up."""
        while not self.seen.finish:
            try:
                self.one_trial(reports=1)
            except Exception:  # noqa: S112 - a locked database: once more
                continue
        self.seen = Seen(seconds=self.order.seconds)
        together.wait()

    def work(self) -> None:
        """Works until the time is over; an error of the storage costs its trial and is counted."""
        while time.perf_counter() < self.over:
            try:
                self.one_trial(self.order.reports)
            except Exception as error:  # a locked database, say: what users see too
                self.seen.statuses[type(error).__name__] += 1

    def one_trial(self, reports: int) -> None:
        """Asks, reports each step, tells; as `Study.optimize` would."""
        due = time.perf_counter()
        trial = self.study.ask()
        trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
        trial.suggest_float("dropout", 0.0, 0.5)
        self.note("claim", due)
        for step in range(1, reports + 1):
            due = time.perf_counter()
            if due > self.over:
                return
            trial.report(2.0 + 1.0 / step, step)
            self.note("report", due)
        due = time.perf_counter()
        self.study.tell(trial, 2.0)
        self.note("finish", due)

    def note(self, kind: str, due: float) -> None:
        """Counts a latency if its call was due in the measured time."""
        if self.starts <= due <= self.over:
            getattr(self.seen, kind).append(time.perf_counter() - due)


def one_client(order: OptunaOrder, together: Barrier, answer: Connection) -> None:
    """The life of a client's process."""
    warnings.simplefilter("ignore")
    client = Client(order, together)
    before = time.process_time()
    working = threading.Thread(target=client.work, daemon=True)
    working.start()
    working.join(order.warm + order.seconds + LAST_CALL_SECONDS)
    answer.send({**vars(client.seen), "cpu": time.process_time() - before})
    os._exit(0)  # also out of a call that waits for a lock


def run(order: OptunaOrder) -> list[dict[str, Any]]:
    """Returns what each client saw."""
    fork = multiprocessing.get_context("fork")
    together = fork.Barrier(order.clients)
    answers = []
    for _ in range(order.clients):
        here, there = fork.Pipe(duplex=False)
        fork.Process(target=one_client, args=(order, together, there), daemon=True).start()
        there.close()
        answers.append(here)
    deadline = time.monotonic() + OPEN_SECONDS + order.warm + order.seconds
    return [heard(answer, deadline) for answer in answers]


def heard(answer: Connection, deadline: float) -> dict[str, Any]:
    """Returns what a client saw; one that could not begin, or hangs, is `unfinished`."""
    with suppress(EOFError):
        if answer.poll(max(0.0, deadline - time.monotonic())):
            said: dict[str, Any] = answer.recv()
            return said
    return dict(UNFINISHED)


def main() -> None:
    """Runs the clients, or the proxy."""
    warnings.simplefilter("ignore")
    if sys.argv[1] == "proxy":
        run_grpc_proxy_server(RDBStorage(sys.argv[2]), host="127.0.0.1", port=int(sys.argv[3]))
        return
    sys.stdout.write(json.dumps(run(OptunaOrder(**json.loads(sys.argv[1])))))


if __name__ == "__main__":
    main()
