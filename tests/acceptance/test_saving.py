"""What a plot is saved as, as CSV, is what the trials have: of every plot, in a real browser."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from service.figures import FIGURES
from service.store import tables
from studies.wire import TrialDetail
from tests.acceptance.drawn import DRAWN, new_context, until
from tests.benchmarks._fill import fill, study_file
from tests.harness.lmtune import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser
STUDY = study_file("varied", "random", 10)
STUDY["search"] |= {"regularizer": {"choice": ["none", "l2"]}}
STUDY["scheduler"] = {"kind": "asha", "min_steps": 2}
TRIALS, STEPS, RUNG = 40, 10, 2
BEGAN, LASTS = 1_764_000_000.0, 60.0  # the first trial, and each of them [s]
SPEED, MEMORY = 4e4, 2**29  # of every trial [tokens/s, bytes]

Row = dict[str, str]
LOSS, TIME = "validation loss [nats/token]", "time from the first grant to the end [s]"
ENDED = ("COMPLETE", "PRUNED")
EVERY = (*ENDED, "FAILED", "CANCELLED")
KNOBS = ("learning_rate", "dropout", "regularizer")
# By plot: the states of the trials that it shows, and the columns that a line of each fills.
SHOWN: dict[str, set[tuple[str, tuple[str, ...]]]] = {
    "history": {*((s, (LOSS,)) for s in ENDED), ("FAILED", ()), ("CANCELLED", ())},
    "curves": {(state, ("step", LOSS)) for state in EVERY},
    "rates": {*((s, ("learning rate", LOSS)) for s in ENDED), ("FAILED", ("learning rate",))},
    "parallel": {("COMPLETE", (*KNOBS, "validation loss"))},
    "contour": {("COMPLETE", ("dropout", "learning_rate"))},
    "pareto": {("COMPLETE", (TIME, LOSS))},
    "slices": {(state, (knob, LOSS)) for state in ENDED for knob in KNOBS},
    "timeline": {(state, ("worker", "start", "end", "text")) for state in EVERY},
    "devices": {(s, ("began", y)) for s in EVERY for y in ("tokens/s", "peak memory [GiB]")},
}
OF_TRIAL: dict[str, Callable[[TrialDetail], Any]] = {
    "learning rate": lambda trial: trial.params["learning_rate"],
    **{knob: lambda trial, knob=knob: trial.params[knob] for knob in KNOBS},
    LOSS: lambda trial: trial.value,
    "validation loss": lambda trial: trial.value,
    TIME: lambda trial: LASTS + trial.number,
    "worker": lambda trial: "fill",
    "start": lambda trial: trial.started_at,
    "began": lambda trial: trial.started_at,
    "end": lambda trial: trial.ended_at,
    "text": lambda trial: "attempt 1, from step 0",
    "tokens/s": lambda trial: SPEED,
    "peak memory [GiB]": lambda trial: 0.5,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a study whose trials ended in every way."""
    folder = tmp_path_factory.mktemp("saving")
    url = f"sqlite:///{folder / 'varied.db'}"
    fill(url, STUDY, TRIALS, STEPS)
    vary(url)
    server = Server(folder / "server", url, {})
    server.start()
    yield server
    server.stop()


def vary(url: str) -> None:
    """Of ten trials one diverged, one was pruned and one cancelled; each has a time of its own."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for row in connection.execute(sa.select(tables.trials)).all():
            of_trial = tables.reports.c.trial_id == row.id
            how, outcome = end_of(row.number)
            began = BEGAN + 100 * row.number
            times = {"started_at": began, "ended_at": began + LASTS + row.number}
            params = {**row.params, "regularizer": ("none", "l2")[row.number % 2]}
            if how["state"] == "PRUNED":
                connection.execute(
                    tables.reports.delete().where(of_trial, tables.reports.c.step > RUNG)
                )
                seen = connection.execute(
                    sa.select(tables.reports.c.value).where(of_trial, tables.reports.c.step == RUNG)
                )
                how |= {"value": seen.scalar_one()}
            own = tables.trials.c.id == row.id
            connection.execute(
                tables.trials.update().where(own).values(**how, **times, params=params)
            )
            attempt = tables.attempts.c.trial_id == row.id
            connection.execute(
                tables.attempts.update().where(attempt).values(outcome=outcome, **times)
            )
        for report in connection.execute(sa.select(tables.reports)).all():
            body = json.loads(report.body)
            body["metrics"] |= {"tokens_per_second": SPEED, "peak_memory_bytes": MEMORY}
            own = tables.reports.c.id == report.id
            connection.execute(tables.reports.update().where(own).values(body=json.dumps(body)))
    engine.dispose()


def end_of(number: int) -> tuple[dict[str, Any], str]:
    """How the trial ends: the columns of its row, and its attempt's outcome."""
    return {
        7: ({"state": "FAILED", "value": None, "reason": "diverged: not finite"}, "diverged"),
        8: ({"state": "PRUNED", "step": RUNG}, "pruned"),
        9: ({"state": "CANCELLED", "value": None}, "preempted"),
    }.get(number % 10, ({"state": "COMPLETE"}, "ok"))


@pytest.fixture(scope="module")
def saved(browser: Browser, server: Server) -> Iterator[dict[str, list[Row]]]:
    """The lines of each plot's CSV."""
    context = new_context(browser, viewport={"width": 1366, "height": 768})
    page = context.new_page()
    page.goto(server.client.login_link().url)
    page.goto(f"{server.url}/studies/varied")
    until(page, DRAWN)
    found = {}
    for kind in FIGURES:
        save = page.locator(f"#{kind}-save")
        save.locator("summary").click()
        with page.expect_download() as started:
            save.get_by_role("button", name="CSV").click()
        found[kind] = list(csv.DictReader(Path(started.value.path()).read_text().splitlines()))
    yield found
    context.close()


@pytest.fixture(scope="module")
def trials(server: Server) -> dict[int, TrialDetail]:
    """The trials as the server tells of them."""
    return {n: server.client.studies.trial("varied", n) for n in range(TRIALS)}


@pytest.mark.parametrize("kind", SHOWN)
def test_a_line_of_a_trial_says_what_the_trial_has(
    saved: dict[str, list[Row]], trials: dict[int, TrialDetail], kind: str
) -> None:
    rows = [row for row in saved[kind] if row["trial"] and row["series"] != "best so far"]
    shown = set()
    for row in rows:
        trial = trials[int(row["trial"])]
        said = {
            name: text for name, text in row.items() if text and name not in ("series", "trial")
        }
        shown.add((trial.state.value, *sorted(said)))
        for name, text in said.items():
            assert same(text, of(trial, name, row)), (name, text, trial)
    assert shown == {(state, *sorted(columns)) for state, columns in SHOWN[kind]}
    states = {state for state, _ in SHOWN[kind]}
    assert {int(row["trial"]) for row in rows} == {
        n for n, t in trials.items() if t.state in states
    }


def of(trial: TrialDetail, name: str, row: Row) -> Any:
    """What the trial has in that column; on a curve it is what it had at that step."""
    if not row.get("step"):
        return OF_TRIAL[name](trial)
    point = next(point for point in trial.curve if point.step == int(row["step"]))
    return point.step if name == "step" else point.metrics["validation_loss"]


def same(text: str, value: Any) -> bool:
    """True where the text says the value."""
    if isinstance(value, datetime):
        return abs((datetime.fromisoformat(text) - value).total_seconds()) < 1e-3
    return text == value if isinstance(value, str) else float(text) == pytest.approx(value)


def test_a_line_of_no_trial_says_what_it_is_of(
    saved: dict[str, list[Row]], trials: dict[int, TrialDetail]
) -> None:
    losses = [t.value for t in trials.values() if t.state == "COMPLETE" and t.value is not None]
    matters = {row["knob"]: float(row["importance"]) for row in saved["importances"]}
    assert set(matters) == set(KNOBS)
    assert max(matters, key=lambda knob: matters[knob]) == "learning_rate"
    rungs = {(row["series"], row["rung"]): int(row["trials"]) for row in saved["rungs"]}
    assert rungs["pruned", f"step {RUNG}"] == sum(t.state == "PRUNED" for t in trials.values())
    means = [float(row[LOSS]) for row in saved["contour"] if row["series"] == "mean"]
    assert len(means) > 4
    assert min(losses) <= min(means) < max(means) <= max(losses)
    best = [float(row[LOSS]) for row in saved["history"] if row["series"] == "best so far"]
    assert best == sorted(best, reverse=True)
    assert best[-1] == pytest.approx(min(losses))
