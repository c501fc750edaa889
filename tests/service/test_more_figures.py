"""The figures of a study's knobs, attempts and rungs, as data."""

import json
import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.figures import FIGURES, Options, StudyData, TrialData
from service.figures.contour import CELLS, contour_data
from service.figures.curves import curves_data
from service.figures.data import MAX_TRIALS, AttemptData, LoadData
from service.figures.devices import devices_data
from service.figures.distribution import distribution_data
from service.figures.parallel import LINES, parallel_data
from service.figures.pareto import pareto_data
from service.figures.rates import divergence_edge, rates_data
from service.figures.rungs import Rung, rungs_data
from service.figures.timeline import timeline_data
from studies.space import Entry, build
from studies.trial import TrialState

COMPLETE, PRUNED, PAUSED = TrialState.COMPLETE, TrialState.PRUNED, TrialState.PAUSED
FAILED, RUNNING = TrialState.FAILED, TrialState.RUNNING
SPACE = build(
    {
        "learning_rate": Entry(log=(1e-4, 1e-1)),
        "precision": Entry(choice=("fp32", "bf16")),
        "lambda": Entry(log=(1e-8, 1e-2), when={"precision": "bf16"}),
    }
)
BEGUN = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


def trial(number, rate, value=None, precision="fp32", state=COMPLETE, **more):
    params = {"learning_rate": rate, "precision": precision}
    return TrialData(number, state, params, value, diverged=state is FAILED, **more)


def test_rates_are_grouped_by_precision_and_know_where_each_diverges():
    data = rates_data(
        StudyData(
            [
                trial(0, 1e-3, 2.0),
                trial(1, 3e-2, state=FAILED),
                trial(2, 5e-2, state=FAILED),
                trial(3, 1e-2, 1.5, precision="bf16"),
                trial(4, 2e-3, 1.8, state=PRUNED),
                trial(5, 4e-3, None, state=RUNNING),
            ],
            SPACE,
        )
    )
    assert [(group.name, group.edge) for group in data] == [("bf16", None), ("fp32", 3e-2)]
    assert [number for _, _, number in data[1].dots] == [0, 4]
    assert [number for _, number in data[1].diverged] == [1, 2]


@given(st.lists(st.tuples(st.floats(1e-6, 1.0), st.booleans()), max_size=30))
def test_the_edge_parts_with_the_fewest_errors(fates):
    edge = divergence_edge(fates)
    if not any(diverged for _, diverged in fates):
        assert edge is None
        return

    def wrong(at):
        return sum(diverged != (rate >= at) for rate, diverged in fates)

    rates = [rate for rate, diverged in fates if diverged]
    if len({rate for rate, _ in fates}) == len(fates):
        assert wrong(edge) == min(wrong(rate) for rate in rates)
    assert edge in rates


def test_a_line_of_parallel_coordinates_stands_between_the_ends_of_the_search():
    data = parallel_data(StudyData([trial(0, 1e-4, 2.0), trial(1, 1e-1, 1.0, "bf16")], SPACE))
    assert data.names == ["learning_rate", "precision", "lambda", "validation loss"]
    assert data.ends[0] == ("0.0001", "0.1")
    best, other = data.lines
    assert (best.number, best.group) == (1, "best")
    assert best.places[:3] == [1.0, 1.0, None]
    assert other.places[:2] == [0.0, 0.0]
    assert best.places[3] < other.places[3]


def test_many_lines_are_thinned_and_keep_the_best():
    many = [trial(n, 1e-3, 2.0 - (n == 4_321)) for n in range(10_000)]
    lines = parallel_data(StudyData(many, SPACE)).lines
    assert len(lines) <= LINES + 1
    assert lines[0].number == 4_321


def test_rungs_say_what_became_of_who_reached_them():
    data = rungs_data(
        StudyData(
            [
                trial(0, 1e-3, 1.0, step=90),
                trial(1, 1e-3, 3.0, state=PRUNED, step=10),
                trial(2, 1e-3, 2.0, state=PAUSED, step=30),
                trial(3, 1e-3, 2.0, state=RUNNING, step=20),
            ],
            rungs=[10, 30],
        )
    )
    assert data == [Rung(10, 3, 1, 0), Rung(30, 1, 0, 1)]


def test_the_timeline_has_a_row_for_each_worker_the_latest_first():
    def attempt(number, worker, minute, outcome="ok"):
        began = BEGUN + timedelta(minutes=minute)
        ended = began + timedelta(minutes=1) if outcome else None
        return AttemptData(number, 1, worker, began, ended, outcome, 0)

    some = [attempt(0, "a", 0), attempt(1, "b", 1, "lost"), attempt(2, "b", 3, None)]
    rows = timeline_data(StudyData([], attempts=some))
    assert {worker: [a.number for a in own] for worker, own in rows.items()} == {
        "b": [2, 1],
        "a": [0],
    }
    figure = json.loads(FIGURES["timeline"].json(StudyData([], attempts=some), Options()))
    assert {trace["name"] for trace in figure["data"]} == {"running", "lost", "ended well"}


def test_devices_show_what_attempts_made_of_them_the_earliest_first():
    def load(number, device, minute, speed, memory=2**31):
        return LoadData(number, device, BEGUN + timedelta(minutes=minute), speed, memory)

    some = [load(2, "gpu", 2, 900.0), load(0, "cpu", 0, 90.0), load(1, "gpu", 1, 800.0, None)]
    study = StudyData([], loads=some)
    by_device = {
        device: [load.number for load in own] for device, own in devices_data(study).items()
    }
    assert by_device == {"gpu": [1, 2], "cpu": [0]}
    figure = json.loads(FIGURES["devices"].json(study, Options()))
    drawn = [(trace["name"], trace["y"], trace["customdata"]) for trace in figure["data"]]
    assert drawn == [
        ("gpu", [800.0, 900.0], [1, 2]),
        ("gpu", [2.0], [2]),
        ("cpu", [90.0], [0]),
        ("cpu", [2.0], [0]),
    ]
    empty = json.loads(FIGURES["devices"].json(StudyData([]), Options()))
    assert "first report" in empty["layout"]["annotations"][0]["text"]


@pytest.mark.parametrize(("x", "xs"), [("step", [10]), ("tokens", [640]), ("seconds", [1.5])])
def test_curves_are_drawn_over_steps_tokens_or_seconds(x, xs):
    one = trial(0, 1e-3, 2.0, curve=((10, 2.0),), spent=((640, 1.5),))
    (curve,) = curves_data(StudyData([one], SPACE), x).curves
    assert [at for at, _ in curve.points] == xs


PLANE = build(
    {
        "dropout": Entry(uniform=(0.0, 0.5)),
        "learning_rate": Entry(log=(1e-4, 1e-1)),
        "optimizer": Entry(choice=("adamw", "sgd")),
        "layers": Entry(uniform=(1, 4)),
    }
)


def placed(number, rate, layers, value, **more):
    params = {"learning_rate": rate, "layers": layers, "dropout": 0.1, "optimizer": "adamw"}
    return TrialData(number, COMPLETE, params, value, **more)


def test_a_contour_has_the_means_of_the_two_numbers_that_matter_most():
    trials = [placed(0, 1e-4, 1, 3.0), placed(1, 1.1e-4, 1, 2.0), placed(2, 1e-1, 4, 1.0)]
    matters = {"layers": 0.6, "learning_rate": 0.3, "optimizer": 0.9, "dropout": 0.1}
    grid = contour_data(StudyData(trials, PLANE, importances=matters))
    assert (grid.x.name, grid.y.name) == ("layers", "learning_rate")
    assert len(grid.means) == CELLS[0]
    known = {(r, c): z for r, row in enumerate(grid.means) for c, z in enumerate(row) if z}
    assert known == {(0, 0): 2.5, (3, 3): 1.0}
    assert grid.best == (4.0, 1e-1, 2)
    assert grid.ys == pytest.approx([10 ** (-4 + 3 * eighths / 8) for eighths in (1, 3, 5, 7)])


def test_a_contour_of_many_trials_stays_small():
    def rate(number):
        return 1e-4 * 1000 ** ((number * 0.618) % 1)

    trials = [placed(n, rate(n), 1 + n % 4, 2.0 + n % 7) for n in range(5_000)]
    study = StudyData(trials, PLANE)
    assert len(contour_data(study).means) == CELLS[1]
    assert len(FIGURES["contour"].json(study, Options())) < 60_000


def test_nothing_beats_what_is_on_the_front():
    def took(number, seconds, value):
        return placed(
            number, 1e-3, 2, value, started=BEGUN, ended=BEGUN + timedelta(seconds=seconds)
        )

    trials = [took(0, 10, 3.0), took(1, 20, 2.0), took(2, 30, 2.5), took(3, 40, 1.0)]
    trials += [took(4, 10, 3.5), placed(5, 1e-3, 2, 0.5), trial(6, 1e-3, state=PRUNED)]
    data = pareto_data(StudyData(trials, PLANE))
    assert [number for _, _, number in data.front] == [0, 1, 3]
    assert [number for _, _, number in data.others] == [2, 4]


@pytest.mark.parametrize(
    ("direction", "steps"),
    [
        ("minimize", [(1.0, 0.25, 3), (2.0, 0.5, 1), (2.0, 0.75, 4), (4.0, 1.0, 0)]),
        ("maximize", [(4.0, 0.25, 0), (2.0, 0.5, 1), (2.0, 0.75, 4), (1.0, 1.0, 3)]),
    ],
)
def test_the_distribution_counts_from_the_best_value(direction, steps):
    values = [4.0, 2.0, None, 1.0, 2.0]
    trials = [trial(number, 1e-3, value) for number, value in enumerate(values)]
    trials += [trial(5, 1e-3, 0.5, state=PRUNED), trial(6, 1e-3, math.nan)]
    assert distribution_data(StudyData(trials, SPACE, direction=direction)).steps == steps


def test_the_distribution_of_many_trials_is_thinned_and_true_where_it_is_drawn():
    trials = [trial(n, 1e-3, 2.0 + (n * 0.618) % 1) for n in range(10_000)]
    steps = distribution_data(StudyData(trials, SPACE)).steps
    assert len(steps) == MAX_TRIALS
    values = sorted(one.value for one in trials)
    assert (steps[0][0], steps[-1][:2]) == (values[0], (values[-1], 1.0))
    assert all(value == values[round(share * 10_000) - 1] for value, share, _ in steps)
    assert len(FIGURES["distribution"].json(StudyData(trials, SPACE), Options())) < 100_000


def test_a_trial_outside_of_a_space_that_was_narrowed_has_no_place_in_it():
    narrow = build({"learning_rate": Entry(log=(1e-3, 1e-2)), "precision": Entry(choice=("fp32",))})
    trials = [trial(0, 2e-3, 2.0), trial(1, 5e-2, 1.0), trial(2, 2e-3, 1.5, precision="bf16")]
    study = StudyData(trials, narrow)
    assert [line.number for line in parallel_data(study).lines] == [0]
    for kind in FIGURES:
        assert FIGURES[kind].json(study, Options())
