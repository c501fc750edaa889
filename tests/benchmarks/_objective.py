"""The objective of bench-turnaround: a tiny LSTM, trained by lmtune's own loop wherever it runs.

    python -m tests.benchmarks._objective TEXT TRIALS OUT    back to back in one process

What lies between two trials then is only what the objective itself does: it builds the model.
"""

from __future__ import annotations

import gc
import json
import random
import sys
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from studies.corpus import read_text
from studies.spec import StudySpec, parse_spec
from studies.trial import Outcome
from studies.wire import ReportItem
from trainer.loop import NullReporter, train

STEPS: Final = 20
STARTUP: Final = 10  # random trials before TPE begins, for lmtune and for Ray Tune
SENTENCE: Final = "".join(f"{n} green bottles are standing on the wall.\n" for n in range(300))


def document(text: Path, trials: int) -> dict[str, Any]:
    """Returns the study, which reports once, at its last step."""
    return {
        "name": "turnaround",
        "data": {"path": text.name, "tokenizer": "characters"},
        "model": {"kind": "lstm", "embedding_dim": 8, "hidden_dim": 32},
        "train": {
            "steps": STEPS,
            "evaluate_every": STEPS,
            "batch_size": 8,
            "sequence_length": 32,
        },
        "search": {
            "learning_rate": {"log": [1.0e-4, 1.0e-1]},
            "dropout": {"uniform": [0.0, 0.5]},
        },
        "sampler": {"kind": "tpe", "seed": 7, "startup_trials": STARTUP},
        "budget": {"trials": trials},
    }


class Times(NullReporter):
    """Hears when the first step begins and when the last evaluation is there [unix s].

    A worker's log says the same two moments of a trial, taken at the same two places.
    """

    def __init__(self, tell: Callable[[float], None]) -> None:
        self._tell = tell
        self.first = self.last = 0.0

    def ending(self, step: int) -> Outcome | None:
        """Notes the first call: the first step follows."""
        self.first = self.first or time.time()
        return None

    def report(self, item: ReportItem) -> None:
        """Notes the time, then passes the loss on."""
        self.last = time.time()
        self._tell(float(item.metrics["validation_loss"]))


@lru_cache(maxsize=1)
def prepared(text: str) -> tuple[StudySpec, str]:
    """Returns the study and the text in a file, read once per process as in a warm worker."""
    spec = parse_spec(document(Path(text), trials=1))
    return spec, read_text(Path(text))


def objective(
    text: str, params: Mapping[str, float], tell: Callable[[Times, float], None]
) -> Times:
    """Trains one trial; `tell` is given the loss where a user's objective would report it."""
    spec, corpus = prepared(text)
    times = Times(lambda loss: tell(times, loss))
    train(spec.recipe(params, 0), corpus, times)
    gc.freeze()  # so that the collection after the next trial passes over what torch imported late
    return times


def main() -> None:
    """Trains trial after trial; writes when each began and ended."""
    text, trials, out = sys.argv[1:]
    rng = random.Random(7)
    ran = []
    for _ in range(int(trials)):
        params = {"learning_rate": 10 ** rng.uniform(-4, -1), "dropout": rng.uniform(0, 0.5)}
        times = objective(text, params, lambda *_: None)
        ran.append((times.first, times.last))
    Path(out).write_text(json.dumps(ran))


if __name__ == "__main__":
    main()
