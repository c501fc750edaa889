"""Ray Tune on the same objective: `python -m tests.benchmarks._ray TEXT TRIALS REUSE OUT`.

It runs in an environment of its own (turnaround.py makes it), one trial at a time, with Optuna's
TPE as Ray's users get it from OptunaSearch, and with everything else as Ray ships. It makes no
checkpoints, which lmtune does.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import optuna
import ray
from ray import tune
from ray.tune.search.optuna import OptunaSearch

from tests.benchmarks._objective import STARTUP, objective


def trainable(config: dict[str, Any]) -> None:
    """Trains one trial; the times travel with the result."""
    text = config.pop("text")
    objective(
        text,
        config,
        lambda times, loss: tune.report(
            {"validation_loss": loss, "first": times.first, "last": times.last}
        ),
    )


def run(text: str, trials: int, reuse: bool, storage: str) -> list[tuple[float, float]]:
    """Returns when each trial's first step began and its last evaluation was there."""
    sampler = optuna.samplers.TPESampler(seed=7, n_startup_trials=STARTUP, multivariate=True)
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space={
            "learning_rate": tune.loguniform(1e-4, 1e-1),
            "dropout": tune.uniform(0.0, 0.5),
            "text": text,
        },
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(sampler=sampler),
            metric="validation_loss",
            mode="min",
            num_samples=trials,
            max_concurrent_trials=1,
            reuse_actors=reuse,
        ),
        run_config=tune.RunConfig(storage_path=storage, verbose=0),
    )
    metrics = [result.metrics for result in tuner.fit() if result.metrics]
    return sorted((m["first"], m["last"]) for m in metrics)


def main() -> None:
    """Starts a Ray of one CPU, runs the study and writes the times."""
    text, trials, reuse, out = sys.argv[1:]
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    os.environ["RAY_TMPDIR"] = folder
    try:
        ray.init(
            num_cpus=1,
            include_dashboard=False,
            object_store_memory=100 << 20,
            _temp_dir=folder,
            log_to_driver=False,
        )
        ran = run(text, int(trials), reuse == "reuse", f"{folder}/results")
        Path(out).write_text(json.dumps(ran))
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
