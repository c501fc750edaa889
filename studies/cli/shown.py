"""Studies, trials and workers as rows and lines: pure, from views to text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

from studies.cli.output import cell, pairs, seconds
from studies.trial import StudyState, TrialState
from studies.wire import StudyView, TrialDetail, TrialView, WorkerView

STUDY_COLUMNS = ("name", "state", "trials", "best", "running", "created")
WORKER_COLUMNS = ("worker", "device", "state", "study", "trial", "busy", "host", "pid")
_UNITS = {
    "validation_loss": "nats per token",
    "train_loss": "nats per token",
    "tokens_per_second": "tokens/s",
}


def study_row(study: StudyView) -> Sequence[Any]:
    """Returns the study's row under STUDY_COLUMNS."""
    return (
        study.name,
        state_of(study),
        progress(study),
        study.best.value if study.best else None,
        seconds(study.running_seconds),
        f"{study.created_at.astimezone():%Y-%m-%d %H:%M}",  # the reader's zone
    )


def worker_row(worker: WorkerView) -> Sequence[Any]:
    """Returns the worker's row under WORKER_COLUMNS."""
    trial = "" if worker.trial is None else str(worker.trial)
    busy = "" if worker.utilisation is None else f"{100 * worker.utilisation:.0f} %"
    held = (worker.state, worker.study, trial, busy)
    return (worker.name, worker.device, *held, worker.host, str(worker.pid))


def trial_columns(study: StudyView) -> list[str]:
    """Returns the heads of a table of the study's trials: its searched knobs among them."""
    return ["trial", "state", metric(study), "step", *searched(study)]


def trial_row(study: StudyView, trial: TrialView) -> list[Any]:
    """Returns the trial's row under `trial_columns`."""
    best = study.best is not None and study.best.number == trial.number
    state = f"{trial.state} best" if best else str(trial.state)
    if trial.reason and trial.state is TrialState.FAILED:
        state = f"{trial.state} {trial.reason}"
    params = [trial.params.get(name) for name in searched(study)]
    return [trial.number, state, trial.value, f"{trial.step}/{trial.max_step}", *params]


def finished_line(study: StudyView, trial: TrialView) -> str:
    """Returns one finished trial as a line of a log."""
    best = study.best is not None and study.best.number == trial.number
    parts = [f"trial {trial.number}: {trial.state}{' (best so far)' if best else ''}"]
    if trial.reason and trial.state is not TrialState.COMPLETE:
        parts.append(trial.reason)
    if trial.value is not None:
        parts.append(f"{metric(study)} {trial.value:.4f}")
    parts += [f"step {trial.step}/{trial.max_step}", pairs(trial.params)]
    return "; ".join(part for part in parts if part)


def study_lines(study: StudyView) -> list[str]:
    """Returns what a person wants to know of a study."""
    counts = {str(state).lower(): n for state, n in study.counts.items() if n}
    lines = [f"{study.name}: {state_of(study)}, {progress(study)} trials"]
    lines += [study.description] if study.description else []
    lines += [f"trials    {pairs(counts) or 'none yet'}"]
    lines += [f"running   {seconds(study.running_seconds)}"]
    if study.best is not None:
        value = f"{metric(study)} {study.best.value:.4f}"
        lines += [f"best      trial {study.best.number}, {value}"]
    lines += [f"waits     no connected worker has {study.lacking}"] if study.lacking else []
    return lines + ([f"error     {study.error}"] if study.error else [])


def best_lines(study: StudyView, best: TrialDetail) -> list[str]:
    """Returns the best trial with its value, the unigram baseline and its parameters."""
    name, value = metric(study), cell(best.value) if best.value is None else f"{best.value:.4f}"
    lines = [f"best trial {best.number}: {name} {value} {_UNITS.get(name, '')}".rstrip()]
    baseline = unigram_loss(best)
    if baseline is not None:
        lines.append(f"unigram baseline: {baseline:.4f} nats per token")
    width = max(map(len, best.params), default=0)
    return lines + [f"  {name.ljust(width)}  {cell(v)}" for name, v in best.params.items()]


def best_document(study: StudyView, best: TrialDetail) -> dict[str, Any]:
    """Returns the best trial as JSON values for scripts."""
    return {
        "study": study.name,
        "number": best.number,
        "metric": metric(study),
        "value": best.value,
        "params": best.params,
        "step": best.step,
        "unigram_loss": unigram_loss(best),
        "recipe": best.recipe.model_dump(mode="json", by_alias=True),
    }


def unigram_loss(trial: TrialDetail) -> float | None:
    """Returns the loss of a unigram model on the same split [nats per token], if it was said."""
    losses = [attempt.environment.get("unigram_loss") for attempt in trial.attempts]
    return next((float(loss) for loss in reversed(losses) if isinstance(loss, int | float)), None)


def state_of(study: StudyView) -> str:
    """Returns the study's state, with its reason."""
    said = f"{study.state} ({study.reason})" if study.reason else str(study.state)
    return f"{said}, archived" if study.archived else said


def progress(study: StudyView) -> str:
    """Returns "finished/budget"."""
    return f"{finished(study)}/{budget(study)}"


def finished(study: StudyView) -> int:
    """Returns how many of the study's slots are used up."""
    counts = study.counts
    ends = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED)
    return sum(counts.get(state, 0) for state in ends)


def budget(study: StudyView) -> int:
    """Returns how many trials the study may have."""
    return int(study.spec.get("budget", {}).get("trials", 16))


def seconds_left(study: StudyView) -> float | None:
    """Returns about how long the study will still run [s]; None where nothing is known.

    The trials to come are taken to last as those that are over did; the wall time ends the study.
    """
    if study.state not in (StudyState.RUNNING, StudyState.PAUSED):
        return None
    ran, done, limit = study.running_seconds, finished(study), _wall_time(study)
    guesses = [ran / done * (budget(study) - done)] if done else []
    guesses += [] if limit is None else [limit - ran]
    return max(min(guesses), 0.0) if guesses else None


def _wall_time(study: StudyView) -> float | None:
    said = study.spec.get("budget", {}).get("wall_time")
    return None if said is None else float(said)


def records(study: StudyView, trials: Iterable[TrialView]) -> list[float]:
    """Returns the best value so far after each complete trial, in the order of their ends."""
    better = max if study.spec.get("objective", {}).get("direction") == "maximize" else min
    done = [t for t in trials if t.state is TrialState.COMPLETE and t.value is not None]
    values = [t.value for t in sorted(done, key=lambda t: (str(t.ended_at), t.number))]
    return list(accumulate((value for value in values if value is not None), better))


def metric(study: StudyView) -> str:
    """Returns the name of the objective."""
    return str(study.spec.get("objective", {}).get("metric", "validation_loss"))


def searched(study: StudyView) -> list[str]:
    """Returns the names of the searched knobs."""
    return list(study.spec.get("search", {}))


def latest(trials: Iterable[TrialView], count: int) -> list[TrialView]:
    """Returns the trials that are worth a look: the running, then the last finished."""
    by_end = sorted(
        trials, key=lambda t: (t.state is TrialState.RUNNING, str(t.ended_at), t.number)
    )
    return by_end[::-1][:count]
