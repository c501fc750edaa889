"""Trials as a table for pandas, where pandas is installed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from studies.errors import LmtuneError
from studies.wire import TrialView

if TYPE_CHECKING:
    import pandas as pd

PREFIX: Final = "params_"  # before the name of a searched knob, as Optuna's own tables have it
_LEFT_OUT: Final = {"study", "number", "params", "desired"}


def trials_frame(trials: Iterable[TrialView]) -> pd.DataFrame:
    """Returns a row per trial, by number: state, value, step, times, and a column per knob.

    A knob that was off in a trial is missing there.

    Raises:
        LmtuneError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError:
        raise LmtuneError("pandas is not installed here: pip install pandas") from None
    rows = list(trials)
    columns = [name for name in TrialView.model_fields if name not in _LEFT_OUT]
    knobs = dict.fromkeys(name for trial in rows for name in trial.params)
    table = {
        **{name: [getattr(trial, name) for trial in rows] for name in columns},
        **{PREFIX + name: [trial.params.get(name) for trial in rows] for name in knobs},
    }
    return pd.DataFrame(table, index=pd.Index([t.number for t in rows], name="number"))
