"""`lmtune import optuna`: a real Optuna study, read from its file, on a real server."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState, create_trial

from studies import wire
from tests.service.live import Live
from tests.studies.conftest import Run, run

__all__ = ["run"]
SPACE: dict[str, BaseDistribution] = {
    "learning_rate": FloatDistribution(1e-5, 1e-1, log=True),
    "n-units": IntDistribution(16, 64, step=16),
    "dropout": FloatDistribution(0.0, 1.0),  # ours ends below 1
    "act": CategoricalDistribution(["relu", None, 3]),
}


def values(n: int) -> dict[str, object]:
    return {
        "learning_rate": 1e-4 * (n + 1),
        "n-units": 16 + 16 * (n % 4),
        "dropout": n / 10,
        "act": ["relu", None, 3][n % 3],
    }


@pytest.fixture
def theirs(tmp_path: Path) -> str:
    """A study of nine trials: complete, pruned, failed, infinite, running."""
    url = f"sqlite:///{tmp_path / 'theirs.db'}"
    study = optuna.create_study(storage=url, study_name="their study", direction="maximize")
    for n in range(8):
        state = {5: TrialState.PRUNED, 6: TrialState.FAIL}.get(n, TrialState.COMPLETE)
        curve = {step: 0.1 * step + n for step in range(4)} if n != 3 else {}
        if n == 6:
            curve[3] = math.nan
        value = {5: 5.3, 6: None, 7: math.inf}.get(n, 0.5 + n)
        study.add_trial(
            create_trial(
                state=state,
                value=value,
                params=values(n),
                distributions=SPACE,
                intermediate_values=curve,
            )
        )
    study.ask()
    study._storage.remove_session()
    return url


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    with Live("", tmp_path / "home") as live:
        monkeypatch.setenv("LMTUNE_URL", live.url)
        monkeypatch.setenv("LMTUNE_TOKEN", live.token)
        yield live


def test_a_study_comes_in_whole_and_is_read_like_any_other(
    run: Run, live: Live, theirs: str
) -> None:
    ran = run("import", "optuna", theirs)
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == (
        "study their-study: 9 trials brought in (5 COMPLETE, 1 PRUNED, 2 FAILED, 1 CANCELLED)"
    )
    assert lines[1:] == [
        "note: n-units is called n_units here",
        "note: dropout is called dropout_ here",
        "note: steps are 1 higher than in Optuna: here they begin at 1",
        "note: 1 trials were not over in Optuna: they are CANCELLED here",
    ]
    studies = live.client.studies
    study = studies.get("their-study")
    assert (study.state, study.reason, study.best) == (
        "ENDED",
        "imported",
        wire.BestTrial(number=4, value=4.5),
    )
    one = studies.trial("their-study", 1)
    assert one.params == {
        "learning_rate": 2e-4,
        "n_units": 32,
        "dropout_": 0.1,
        "act": "None",
    }
    assert [(p.step, p.metrics["validation_loss"]) for p in one.curve] == [
        (step + 1, pytest.approx(0.1 * step + 1)) for step in range(4)
    ]
    assert studies.trial("their-study", 3).curve == []
    assert studies.trial("their-study", 5).value == 5.3
    assert math.isnan(studies.trial("their-study", 6).curve[-1].metrics["validation_loss"])
    assert studies.trial("their-study", 7).reason == "diverged: its value was inf"
    assert len(list(studies.trials("their-study"))) == 9
    for page in ("", "/trials/1", "/report"):
        assert live.api.get(f"/studies/their-study{page}").status_code == 200
    for kind in live.api.get("/api/v1/studies/their-study/figures").json():
        figure = live.api.get(f"/api/v1/studies/their-study/figures/{kind}")
        assert figure.status_code == 200, kind
    assert "lmtune reproduce" not in studies.report("their-study")


def test_what_came_in_is_optunas_too(run: Run, live: Live, theirs: str) -> None:
    from service.reconcile import differences

    assert run("import", "optuna", theirs, "--as", "ours").code == 0
    assert differences(live.parts.ctx.database) == []
    url = live.settings.url
    study = optuna.load_study(study_name="ours", storage=url)
    original = optuna.load_study(study_name="their study", storage=theirs)
    assert study.best_trial.number == 4
    states = {TrialState.RUNNING: TrialState.FAIL}
    for mine, its in zip(study.trials, original.trials, strict=True):
        infinite = bool(its.values) and math.isinf(its.values[0])
        wanted = TrialState.FAIL if infinite else states.get(its.state, its.state)
        assert mine.state is wanted
        assert mine.datetime_complete == its.datetime_complete
    study._storage.remove_session()
    original._storage.remove_session()


def test_nothing_is_half_imported(live: Live, theirs: str, run: Run) -> None:
    wrong = [
        {"state": "COMPLETE", "params": {"learning_rate": 0.01}, "value": 1.0},
        {"state": "COMPLETE", "params": {"learning_rate": 7.0}, "value": 1.0},
        {"state": "COMPLETE", "params": {"nothing": 1}, "value": 1.0},
        {"state": "COMPLETE", "params": {}, "value": None},
        {"state": "PRUNED", "params": {}, "curve": [[2, 1.0], [1, 1.0]]},
        {"state": "PRUNED", "params": {}, "curve": [[1, 1.0], [9, 1.0]]},
    ]
    document = {
        "name": "half",
        "data": {"builtin": "stdlib"},
        "train": {"steps": 4, "evaluate_every": 1},
        "search": {"learning_rate": {"log": [1e-4, 1e-1]}},
    }
    answer = live.api.post("/api/v1/imports", json={"study": document, "trials": wrong})
    fields = [error["field"] for error in answer.json()["errors"]]
    assert (answer.status_code, fields) == (
        422,
        [
            "trials.1.params.learning_rate",
            "trials.2.params.nothing",
            "trials.3.value",
            "trials.4.curve",
            "trials.5.curve",
        ],
    )
    running = {"state": "RUNNING", "params": {}}
    answer = live.api.post("/api/v1/imports", json={"study": document, "trials": [running]})
    assert answer.status_code == 422
    assert list(live.client.studies.list()) == []
    assert run("import", "optuna", theirs).code == 0
    again = run("import", "optuna", theirs)
    assert (again.code, "choose another name" in again.err) == (1, True)


def test_a_storage_that_is_none_is_one_clear_line_and_stays_as_it_is(
    run: Run, live: Live, theirs: str, tmp_path: Path
) -> None:
    def refused(*arguments: str) -> str:
        ran = run("import", "optuna", *arguments)
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1), ran
        return ran.err

    assert "no such file" in refused(f"sqlite:///{tmp_path / 'none.db'}")
    assert not (tmp_path / "none.db").exists()
    assert "no such file" in refused(str(tmp_path / "none.log"))
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE mine (x)")
    before = other.read_bytes()
    assert "is no storage of this Optuna" in refused(f"sqlite:///{other}")
    assert other.read_bytes() == before
    assert "there is no 'nobody'" in refused(theirs, "--study", "nobody")
    assert "there are their study" in refused(theirs, "--study", "nobody")
    optuna.create_study(storage=theirs, study_name="second", directions=["minimize", "minimize"])
    assert "name one of their study, second" in refused(theirs)
    assert "2 objectives" in refused(theirs, "--study", "second")
    optuna.create_study(storage=theirs, study_name="empty")
    assert "has no trials" in refused(theirs, "--study", "empty")
    assert "objective.metric" in refused(theirs, "--study", "their study", "--metric", "f1")
    assert list(live.client.studies.list()) == []


def test_a_journal_file_is_read_too(run: Run, live: Live, tmp_path: Path) -> None:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path = str(tmp_path / "journal.log")
    study = optuna.create_study(storage=JournalStorage(JournalFileBackend(path)), study_name="j")
    study.optimize(lambda t: t.suggest_float("x", -1, 1) ** 2, n_trials=3)
    assert run("import", "optuna", path).code == 0
    best = json.loads(run("best", "j", "--json").out)
    assert best["value"] == pytest.approx(study.best_value)
