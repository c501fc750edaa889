"""A study as other tools read it: TensorBoard's event files, MLflow's folder of runs."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import yaml

from studies.cli import shown
from studies.errors import LmtuneError
from studies.trial import TrialState
from studies.wire import Point, StudyView, TrialDetail

# MLflow's RunStatus: 1 RUNNING, 2 SCHEDULED, 3 FINISHED, 4 FAILED, 5 KILLED.
_STATUS: Final = {
    TrialState.COMPLETE: 3,
    TrialState.PRUNED: 5,
    TrialState.CANCELLED: 5,
    TrialState.FAILED: 4,
    TrialState.RUNNING: 1,
}
_SCHEDULED: Final = 2


def write_tensorboard(
    study: StudyView, trials: Iterable[TrialDetail], folder: Path, _: Path
) -> None:
    """Writes a run per trial: its metrics by step, and its parameters for the HPARAMS page.

    Raises:
        LmtuneError: the package that writes event files is not installed.
    """
    try:
        from tensorboardX import SummaryWriter
        from tensorboardX.summary import hparams
    except ImportError:
        raise LmtuneError(
            "tensorboardX is not installed here: pip install 'lmtune[tensorboard]'"
        ) from None
    logging.getLogger("tensorboardX").setLevel(logging.ERROR)  # else it warns of each NaN
    metric = shown.metric(study)
    for trial in trials:
        if not trial.curve and trial.value is None:
            continue
        run = str(folder / _run_name(trial))
        with SummaryWriter(run) as writer:
            for point in trial.curve:
                moment = _milliseconds(trial, point) / 1_000
                for name, value in point.metrics.items():
                    writer.add_scalar(name, value, point.step, walltime=moment)
            if trial.value is not None:
                # Not `add_hparams`: its second file has the first one's name within a second.
                final = {f"final/{metric}": trial.value}
                for part in hparams(trial.params, final):
                    writer.file_writer.add_summary(part)
                writer.add_scalar(f"final/{metric}", trial.value, trial.step)


def write_mlflow(
    study: StudyView, trials: Iterable[TrialDetail], folder: Path, place: Path
) -> None:
    """Writes MLflow's file store: an experiment for the study, a run per trial.

    MLflow's own packages are not needed: the layout is that of `mlflow.store.tracking.file_store`.

    Args:
        study: the study.
        trials: its trials.
        folder: written to.
        place: where the folder will be read from, as MLflow is told.
    """
    experiment = str(int(_digest(study.name)[:14], 16)).zfill(18)[-18:]
    home, there = folder / experiment, (place / experiment).absolute()
    created = _stamp(study.created_at)
    about = {
        "artifact_location": there.as_uri(),
        "creation_time": created,
        "experiment_id": experiment,
        "last_update_time": _stamp(study.ended_at) or created,
        "lifecycle_stage": "active",
        "name": study.name,
    }
    _write(home / "meta.yaml", _yaml(about))
    for trial in trials:
        run_id = _digest(f"{study.name} {trial.number} {study.created_at.isoformat()}")[:32]
        artifacts = (there / run_id / "artifacts").as_uri()
        _write_run(trial, home / run_id, artifacts)


def _write_run(trial: TrialDetail, run: Path, artifacts: str) -> None:
    about: dict[str, Any] = {
        "artifact_uri": artifacts,
        "end_time": _stamp(trial.ended_at),
        "entry_point_name": "",
        "experiment_id": run.parent.name,
        "lifecycle_stage": "active",
        "run_id": run.name,
        "run_name": _run_name(trial),
        "run_uuid": run.name,
        "source_name": "lmtune",
        "source_type": 4,  # LOCAL
        "source_version": "",
        "start_time": _stamp(trial.started_at or trial.created_at),
        "status": _STATUS.get(trial.state, _SCHEDULED),
        "tags": [],
        "user_id": "lmtune",
    }
    _write(run / "meta.yaml", _yaml(about))
    (run / "artifacts").mkdir()
    tags = {"mlflow.runName": _run_name(trial), "lmtune.state": str(trial.state)}
    tags |= {"lmtune.reason": trial.reason} if trial.reason else {}
    for name, value in tags.items():
        _write(run / "tags" / name, value)
    for name, value in trial.params.items():
        _write(run / "params" / name, str(value))
    for name, lines in _metrics(trial).items():
        _write(run / "metrics" / name, "".join(lines))


def _metrics(trial: TrialDetail) -> Mapping[str, list[str]]:
    """Returns the lines of each metric's file: time [ms], value, step."""
    lines: dict[str, list[str]] = {}
    for point in trial.curve:
        at = _milliseconds(trial, point)
        for name, value in point.metrics.items():
            lines.setdefault(name, []).append(f"{at} {value!r} {point.step}\n")
    return lines


def _milliseconds(trial: TrialDetail, point: Point) -> int:
    """Returns about when a point was reported [ms since 1970]: pauses are not counted."""
    return (_stamp(trial.started_at or trial.created_at) or 0) + point.wall_ms


def _stamp(moment: datetime | None) -> int | None:
    return None if moment is None else int(1_000 * moment.timestamp())


def _run_name(trial: TrialDetail) -> str:
    return f"trial-{trial.number:05}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _yaml(document: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(document), sort_keys=True)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
