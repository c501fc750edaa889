"""Trains with less and less memory until a batch is halved: run by test_backward.py.

    python -m tests.trainer.halved RECIPE TEXT BATCH

Prints three lines of JSON: with all memory, with as much as halved the batch, and a larger BATCH
with that much. How much a run needs is not the same twice, hence the search.
"""

import json
import resource
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studies.recipe import Recipe
from studies.wire import ReportItem
from tests.trainer.short import address_space, apart
from trainer.loop import NullReporter, train

PERCENTS = range(96, 52, -4)  # of the address space that the batch took undivided


@dataclass
class Last(NullReporter):
    """Keeps what was measured last."""

    metrics: dict[str, Any] = field(default_factory=dict)

    def report(self, item: ReportItem) -> None:
        """Keeps it."""
        self.metrics = dict(item.metrics)


def attempt(recipe: Recipe, text: str, limit: int = resource.RLIM_INFINITY) -> dict[str, Any]:
    """Returns outcome, metrics and the address space taken [bytes]; a process of its own."""

    def limited() -> str:
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        last = Last()
        result = train(recipe, text, last)
        said = {"outcome": result.outcome, "reason": result.reason, **last.metrics}
        return json.dumps(said | {"peak": address_space()["VmPeak"]})

    return json.loads(apart(limited) or '{"outcome": "none"}')


def main() -> None:
    """Searches a limit that halves the batch; ends with 1 where there is none."""
    recipe, text = Recipe.model_validate_json(sys.argv[1]), Path(sys.argv[2]).read_text()
    train(recipe.with_knobs({"batch_size": 1, "steps": 1}), text)  # loads what is loaded once
    whole = attempt(recipe, text)
    for percent in PERCENTS:
        limit = whole["peak"] * percent // 100
        halved = attempt(recipe, text, limit)
        if halved["outcome"] == "ok" and halved["batch_parts"] == 2:
            break
    else:
        sys.exit("no limit had the batch halved")
    larger = attempt(recipe.with_knobs({"batch_size": int(sys.argv[3])}), text, limit)
    sys.stdout.writelines(f"{json.dumps(said)}\n" for said in (whole, halved, larger))


if __name__ == "__main__":
    main()
