"""An Optuna study as a study of ours: the only module of the command that knows Optuna."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from studies.errors import InvalidInput, LmtuneError
from studies.imports import ImportedTrial
from studies.recipe import KNOBS
from studies.spec import StudySpec, parse_spec
from studies.trial import TrialState

_STATES: Final = {
    "COMPLETE": TrialState.COMPLETE,
    "PRUNED": TrialState.PRUNED,
    "FAIL": TrialState.FAILED,
}
_SCALARS: Final = (bool, int, float, str)


@dataclass(frozen=True)
class Found:
    """A study that may be brought in, and what became different on the way."""

    spec: StudySpec
    trials: Sequence[ImportedTrial]
    notes: Sequence[str]


def read(url: str, study_name: str | None, name: str | None, metric: str) -> Found:
    """Returns the study of Optuna's storage at the address; writes nothing there.

    Args:
        url: of a database that SQLAlchemy opens, or the path of a journal file.
        study_name: Optuna's name of it; None: the only one.
        name: its name here; None: Optuna's, as far as it is one.
        metric: what its values are called here.

    Raises:
        InvalidInput: there is no such storage or study, or it is nothing that lmtune can show.
    """
    study = _opened(url, study_name)
    if len(study.directions) > 1:
        message = f"{study.study_name} has {len(study.directions)} objectives"
        raise InvalidInput.of("--study", message, "lmtune shows studies of one objective")
    trials = study.get_trials(deepcopy=False)
    if not trials:
        raise InvalidInput.of("--study", f"{study.study_name} has no trials", "name another")
    ranges = _ranges(trials)
    own_name = name or re.sub(r"[^A-Za-z0-9._-]+", "-", study.study_name).strip("-._")[:64]
    shift = max(1 - min((s for t in trials for s in t.intermediate_values), default=1), 0)
    last = max((s for t in trials for s in t.intermediate_values), default=1) + shift
    document = {
        "name": own_name,
        "description": f"Optuna's study {study.study_name}, brought in."[:2_000],
        "data": {"builtin": "stdlib"},
        "model": {"kind": "script", "command": ["python", "none.py"]},
        "train": {"steps": last, "evaluate_every": 1},
        "objective": {"metric": metric, "direction": study.direction.name.lower()},
        "budget": {"trials": len(trials)},
    }
    spec, names = _spec(document, ranges)
    notes = [f"{old} is called {new} here" for old, new in names.items() if old != new]
    if shift:
        notes.append(f"steps are {shift} higher than in Optuna: here they begin at 1")
    if open_ := sum(not t.state.is_finished() for t in trials):
        notes.append(f"{open_} trials were not over in Optuna: they are CANCELLED here")
    return Found(spec, [_trial(t, names, shift) for t in trials], notes)


def _opened(url: str, name: str | None) -> Any:
    """Returns the study, read from a storage that is there; makes no tables in it."""
    try:
        import optuna
        from optuna.storages import JournalStorage, RDBStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError:
        raise LmtuneError("Optuna is not installed here: pip install 'lmtune[server]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = Path(url.removeprefix("sqlite:///"))
    if (url.startswith("sqlite:///") or "://" not in url) and not path.is_file():
        raise InvalidInput.of("URL", f"{path}: no such file", "name Optuna's storage")
    try:
        storage: Any = (
            RDBStorage(url, skip_table_creation=True)
            if "://" in url
            else JournalStorage(JournalFileBackend(url))
        )
        names = optuna.get_all_study_names(storage)
    except Exception as error:  # of SQLAlchemy, a driver or JSON: whatever the address leads to
        said = " ".join(str(error).split())[:300]
        raise InvalidInput.of("URL", f"is no storage of this Optuna: {said}") from None
    if name is None and len(names) != 1:
        raise InvalidInput.of(
            "--study", f"there are {len(names)}", f"name one of {', '.join(names)}"
        )
    if (name or names[0]) not in names:
        raise InvalidInput.of("--study", f"there is no {name!r}", f"there are {', '.join(names)}")
    return optuna.load_study(study_name=name or names[0], storage=storage)


def _ranges(trials: Sequence[Any]) -> dict[str, list[Any]]:
    """Returns all distributions that each parameter had, by its name in Optuna."""
    ranges: dict[str, list[Any]] = {}
    for trial in trials:
        for name, distribution in trial.distributions.items():
            known = ranges.setdefault(name, [])
            if distribution not in known:
                known.append(distribution)
    return ranges


def _spec(
    document: Mapping[str, Any], ranges: Mapping[str, Sequence[Any]]
) -> tuple[StudySpec, dict[str, str]]:
    """Returns the study, and the name here of each parameter; the more knobs of ours the better."""
    entries = {name: _entry(own) for name, own in ranges.items()}
    error: InvalidInput | None = None
    for kept in (KNOBS, ("learning_rate",), ()):
        names = _names(list(entries), kept)
        search = {names[name]: entry for name, entry in entries.items()}
        try:
            return parse_spec({**document, "search": search}), names
        except InvalidInput as wrong:
            error = wrong
    assert error is not None  # noqa: S101 - it was tried
    raise error


def _names(theirs: Sequence[str], kept: Collection[str]) -> dict[str, str]:
    """Returns a name here for each: letters, digits and _, none twice, knobs only those kept."""
    names: dict[str, str] = {}
    for name in theirs:
        here = re.sub(r"\W", "_", name, flags=re.ASCII)[:60] or "_"
        here = f"_{here}" if here[0].isdigit() else here
        while here in names.values() or (here in KNOBS and here not in kept):
            here += "_"
        names[name] = here
    return names


def _entry(distributions: Sequence[Any]) -> dict[str, Any]:
    """Returns the `search` entry that spans all distributions of one parameter."""
    if hasattr(distributions[0], "choices"):
        return {"choice": [_scalar(choice) for choice in distributions[0].choices]}
    low, high = min(d.low for d in distributions), max(d.high for d in distributions)
    if low == high:
        return {"choice": [low]}
    if all(d.log for d in distributions):
        return {"log": [low, high]}
    steps = {d.step for d in distributions}
    step = steps.pop() if len(steps) == 1 and len(distributions) == 1 else None
    whole = isinstance(low, int) and isinstance(high, int)
    return {"uniform": [low, high], "step": 1 if whole and step is None else step}


def _scalar(value: Any) -> Any:
    """Returns a choice as a study file can say it."""
    return value if isinstance(value, _SCALARS) else repr(value)


def _trial(trial: Any, names: Mapping[str, str], shift: int) -> ImportedTrial:
    state, reason = _STATES.get(trial.state.name, TrialState.CANCELLED), None
    value = trial.values[0] if trial.values else None
    if state is TrialState.CANCELLED:
        reason = f"it was {trial.state.name} in Optuna"
    elif state is TrialState.COMPLETE and (value is None or not math.isfinite(value)):
        state, reason = TrialState.FAILED, f"diverged: its value was {value}"
    elif state is TrialState.FAILED:
        reason = str(trial.system_attrs.get("fail_reason") or "it failed in Optuna")
    steps = sorted(trial.intermediate_values)
    return ImportedTrial.model_validate(
        {
            "state": state,
            "params": {names[name]: _scalar(v) for name, v in trial.params.items()},
            "value": value,
            "curve": [(step + shift, trial.intermediate_values[step]) for step in steps],
            "reason": reason and reason[:2_000],
            "started_at": _utc(trial.datetime_start),
            "ended_at": _utc(trial.datetime_complete),
        }
    )


def _utc(moment: datetime | None) -> datetime | None:
    """Returns a moment that Optuna wrote in local time."""
    return None if moment is None else moment.astimezone(UTC)
