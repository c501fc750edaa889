"""Figures are tested as data; plotly's JSON only for what a browser could not read."""

import json
import math
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import service
from service.figures import FIGURES, Options, StudyData, TrialData, trial_curve
from service.figures.curves import curves_data, thin_curve
from service.figures.data import MAX_POINTS, MAX_TRIALS, AttemptData, finite, thin, window
from service.figures.history import history_data
from service.figures.importances import importances_data
from service.figures.slices import slices_data
from service.figures.style import COLOURS
from studies.space import Entry, build
from studies.trial import TrialState

SPACE = build(
    {
        "learning_rate": Entry(log=(1e-4, 1e-1)),
        "regularizer": Entry(choice=("none", "l2")),
        "lambda": Entry(log=(1e-8, 1e-2), when={"regularizer": "l2"}),
        "dropout": Entry(uniform=(0.0, 0.5)),
    }
)
COMPLETE, PRUNED, RUNNING = TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING
FAILED = TrialState.FAILED
BEGUN = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


def trial(number, state=COMPLETE, value=None, curve=(), diverged=False, **params):
    return TrialData(number, state, params, value, tuple(curve), diverged=diverged)


def study(*trials, **more):
    return StudyData(trials=trials, space=SPACE, **more)


def values():
    return st.none() | st.floats(allow_nan=True, allow_infinity=True)


@st.composite
def trials(draw):
    count = draw(st.integers(0, 30))
    return [
        TrialData(
            number=number,
            state=draw(st.sampled_from(TrialState)),
            params={"learning_rate": draw(st.floats(1e-4, 1e-1)), "regularizer": "none"},
            value=draw(values()),
            curve=(curve := tuple(enumerate(draw(st.lists(st.floats(), max_size=5)), 1))),
            spent=tuple((100 * step, 0.5 * step) for step, _ in curve),
        )
        for number in range(count)
    ]


def test_history_steps_only_where_the_best_improves():
    data = history_data(
        study(trial(0, value=3.0), trial(1, value=4.0), trial(2, value=2.0), trial(3, value=2.0))
    )
    assert data.best == [(0, 3.0), (2, 2.0), (3, 2.0)]
    assert data.winner == (2, 2.0)


def test_history_of_a_maximised_metric_rises():
    data = history_data(study(trial(0, value=3.0), trial(1, value=4.0), direction="maximize"))
    assert data.best == [(0, 3.0), (1, 4.0), (1, 4.0)]
    assert data.winner == (1, 4.0)


def test_history_keeps_the_states_apart():
    data = history_data(
        study(
            trial(0, value=3.0),
            trial(1, PRUNED, value=5.0),
            trial(2, RUNNING, curve=[(1, 6.0), (2, 5.5)]),
            trial(3, FAILED, curve=[(1, math.nan)], diverged=True),
            trial(4, FAILED),
        )
    )
    assert data.points == {"complete": [(0, 3.0)], "pruned": [(1, 5.0)], "running": [(2, 5.5)]}
    assert data.without == {"failed": [4], "diverged": [3]}


def test_diverged_trials_are_told_apart_from_other_failures():
    failed = trial(1, FAILED, curve=[(1, 3.0)])
    diverged = trial(2, FAILED, curve=[(1, 4.0), (2, math.nan)], diverged=True)
    some = study(trial(0, value=2.0, curve=[(1, 3.0), (2, 2.0)]), failed, diverged)
    for kind, symbol in (("history", "marker.symbol"), ("curves", "line.dash")):
        traces = {trace.name: trace for trace in FIGURES[kind].draw(some).data}
        assert traces["diverged"].meta["role"] == "diverged"
        assert traces["diverged"][symbol] != traces["failed"][symbol]


def test_only_a_complete_trial_is_the_best():
    data = history_data(study(trial(0, value=3.0), trial(1, PRUNED, value=1.0)))
    assert data.winner == (0, 3.0)
    assert data.best == [(0, 3.0), (1, 3.0)]


def test_one_diverged_trial_does_not_flatten_the_rest():
    low, high = window([2.0, 2.1, 2.2, 2.3, 900.0], "minimize")
    assert low < 2.0
    assert high < 4.0
    good = [trial(n, value=2 + n / 10) for n in range(4)]
    assert history_data(study(*good, trial(4, value=900.0))).outside == 1


def test_the_baseline_shows_where_it_does_not_flatten_the_rest():
    good = [trial(n, value=2 + n / 10) for n in range(4)]
    assert history_data(study(*good, baseline=2.2)).baseline == 2.2
    assert history_data(study(*good, baseline=5.5)).baseline is None
    low, high = curves_data(study(trial(0, value=2.0, curve=[(1, 2.0)]), baseline=3.3)).range
    assert low < 2.0 < 3.3 < high


def test_curves_put_the_best_in_front_and_the_pruned_behind():
    data = curves_data(
        study(
            trial(0, value=2.0, curve=[(1, 3.0), (2, 2.0)]),
            trial(1, value=2.5, curve=[(1, 3.0), (2, 2.5)]),
            trial(2, PRUNED, curve=[(1, 4.0)]),
            trial(3, RUNNING, curve=[(1, 3.9)]),
            trial(4),
        )
    )
    assert [(c.number, c.role) for c in data.curves] == [
        (2, "pruned"),
        (1, "complete"),
        (3, "running"),
        (0, "best"),
    ]


def test_a_thinned_curve_keeps_its_ends_and_extremes():
    points = [(step, 5.0) for step in range(1, 1_001)]
    points[333], points[777] = (334, 1.0), (778, 9.0)
    kept = thin_curve(points, 10)
    assert len(kept) == 10
    assert {(1, 5.0), (334, 1.0), (778, 9.0), (1_000, 5.0)} <= set(kept)
    assert kept == sorted(kept)


def test_curves_leave_out_what_is_not_finite():
    assert thin_curve([(1, 2.0), (2, math.nan), (3, math.inf), (4, 1.0)], 10) == [
        (1, 2.0),
        (4, 1.0),
    ]


def test_importances_are_sorted_for_bars_drawn_from_below():
    known = {"dropout": 0.2, "learning_rate": 0.7, "lambda": 0.1, "broken": math.nan}
    assert importances_data(study(importances=known)) == [
        ("lambda", 0.1),
        ("dropout", 0.2),
        ("learning_rate", 0.7),
    ]


def test_a_slice_shows_a_conditional_knob_only_where_it_was_set():
    panels = slices_data(
        study(
            trial(0, value=2.0, learning_rate=1e-3, regularizer="none", dropout=0.1),
            trial(1, value=1.0, regularizer="l2", **{"lambda": 1e-4, "learning_rate": 1e-2}),
        )
    )
    by_name = {panel.name: panel for panel in panels}
    assert by_name["lambda"].points["best"] == [(1e-4, 1.0, 1)]
    assert by_name["lambda"].points["complete"] == []
    assert by_name["learning_rate"].points["complete"] == [(1e-3, 2.0, 0)]
    axes = {name: panel.axis["type"] for name, panel in by_name.items()}
    assert axes == {
        "learning_rate": "log",
        "regularizer": "category",
        "lambda": "log",
        "dropout": "linear",
    }


@given(st.lists(st.integers(), max_size=300), st.integers(1, 50), st.sets(st.integers(0, 299)))
def test_thinning_keeps_order_limit_and_the_asked_for(items, limit, keep):
    keep = {index for index in keep if index < len(items)}
    kept = thin(list(enumerate(items)), limit, keep)
    assert len(kept) == min(limit, len(items))
    assert kept == sorted(kept)
    if len(keep) <= limit:
        assert {(index, items[index]) for index in keep} <= set(kept)


@settings(max_examples=30)
@given(trials(), st.sampled_from(["minimize", "maximize"]))
def test_every_figure_of_any_study_is_json_that_a_browser_reads(some, direction):
    data = study(*some, direction=direction, importances={"dropout": math.nan}, baseline=3.0)
    for kind, spec in FIGURES.items():
        figure = json.loads(
            spec.json(data, Options(3)), parse_constant=lambda text: pytest.fail(text)
        )
        assert set(figure) == {"data", "layout"}, kind
        drawn = {trace["type"] for trace in figure["data"]}
        assert drawn <= {"scatter", "bar", "contour"}, f"{kind}: is it in service/vendor?"


def test_a_large_study_stays_small_and_keeps_its_best():
    many = [
        TrialData(
            number,
            COMPLETE,
            {"learning_rate": 1e-3, "regularizer": "none", "dropout": 0.1},
            value=3.0 - (number == 4_321),
            curve=tuple((step, 3.0) for step in range(1, 21)),
        )
        for number in range(10_000)
    ]
    data = study(*many)
    assert len(history_data(data).points["complete"]) == MAX_TRIALS
    assert (4_321, 2.0) in history_data(data).points["complete"]
    curves = curves_data(data).curves
    assert sum(len(curve.points) for curve in curves) <= MAX_POINTS
    assert curves[-1].number == 4_321
    assert sum(len(cells) for cells in slices_data(data)[0].points.values()) == MAX_TRIALS
    assert all(len(spec.json(data, Options())) < 2_000_000 for spec in FIGURES.values())


def test_a_trial_shows_its_metrics_and_the_baseline():
    figure = trial_curve(
        {"validation_loss": [(1, 3.0), (2, math.nan)], "train_loss": [(1, 2.9)]}, 3.3
    )
    assert [trace.name for trace in figure.data] == [
        "validation loss",
        "train loss",
        "unigram 3.3",
    ]
    assert list(figure.data[0].y) == [3.0]
    assert trial_curve({}, None).data == ()


def test_a_trials_curve_shows_where_attempts_went_on_and_what_had_ended_them():
    def attempt(number, step, outcome="lost"):
        return AttemptData(0, number, f"w{number}", BEGUN, BEGUN, outcome, step)

    curve = {"validation_loss": [(10, 3.0), (100, 2.0)]}
    attempts = [attempt(1, 0), attempt(2, 20, "preempted"), attempt(3, 80, None)]
    figure = trial_curve(curve, None, attempts)
    line = figure.data[-1]
    assert [x for x in dict.fromkeys(line.x) if x is not None] == [20, 80]
    assert line.text[0] == "attempt 2 on w2, from step 20, after lost"
    labels = [(note.text, note.x, note.xanchor) for note in figure.layout.annotations]
    assert labels == [
        ("attempt 2, after lost", 20, "left"),
        ("attempt 3, after preempted", 80, "right"),  # there is no room to the right of it
    ]
    assert len(trial_curve(curve, None, attempts[:1]).data) == 1


def test_the_labels_of_many_attempts_do_not_lie_over_one_another():
    attempts = [AttemptData(0, n, "w", BEGUN, BEGUN, "lost", 7) for n in range(1, 41)]
    figure = trial_curve({"validation_loss": [(10, 3.0)]}, None, attempts)
    notes = figure.layout.annotations
    assert [note.text for note in notes] == [f"attempt {n}, after lost" for n in range(33, 41)]
    assert len({note.yshift for note in notes}) == len(notes)
    assert figure.data[-1].x.count(None) == 39


def test_every_state_has_a_colour_and_the_page_has_the_same():
    assert {state.value.lower() for state in TrialState} <= set(COLOURS)
    css = Path(service.__file__).parent.joinpath("static/style.css").read_text()
    light = css.split("prefers-color-scheme: dark")[0]
    assert dict(re.findall(r"--plot-([a-z]+): (#[0-9a-f]{6});", light)) == COLOURS
    dark = dict(re.findall(r"--plot-([a-z]+): (#[0-9a-f]{6});", css.removeprefix(light)))
    assert dark.keys() == COLOURS.keys()
    for colours in (COLOURS, dark):
        assert colours["diverged"] not in (colours[role] for role in COLOURS if role != "diverged")


def test_finite_passes_only_finite_numbers():
    assert finite(1.5) == 1.5
    assert [finite(value) for value in (None, math.nan, math.inf)] == [None, None, None]
