"""What the tests of an attempt share: what a trial came to, and things that happen in the midst."""

import threading
import time

from tests.harness.process import PATIENCE

MOODY = ("tokens_per_second", "data_wait_seconds", "peak_memory_bytes")


def numerics(trial):
    return [
        (i.step, i.tokens, {k: v for k, v in i.metrics.items() if k not in MOODY})
        for _, i in sorted(trial.reports.items())
    ]


def when(ready, what):
    """Does `what` in a thread once `ready()` holds."""

    def watch():
        end = time.monotonic() + 60 * PATIENCE
        while not ready() and time.monotonic() < end:
            time.sleep(0.01)
        what()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def training(trial):
    """True once the trial is some steps on, as `when` asks it."""
    return lambda: any(trial.steps) or len(trial.reports) > 1


def preempted(trial):
    """Asks the worker to go in the middle of the trial."""
    return lambda attempt: when(training(trial), lambda: attempt.ask("preempted"))
