"""The report of a study: what it finds, how it draws, and that the page stands alone."""

import re
import statistics
import xml.etree.ElementTree as ET

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service import problems
from service.figures import FIGURES, StudyData, TrialData
from service.figures.axes import Axis
from service.figures.findings import Cost, Spent, findings
from service.figures.svg import svg
from service.routes import report
from studies import wire
from studies.space import Entry, build
from studies.trial import Outcome, StudyState, TrialState
from tests.service.stand_in import StandIn
from tests.service.world import World

SPACE = build(
    {"learning_rate": Entry(log=(1e-4, 1e-1)), "regularizer": Entry(choice=("none", "l2"))}
)


def trial(number, rate, value, regularizer="none", state=TrialState.COMPLETE):
    return TrialData(number, state, {"learning_rate": rate, "regularizer": regularizer}, value)


def study(*trials, **more):
    return StudyData(trials, SPACE, **more)


def test_the_top_is_a_tenth_at_least_three_at_most_ten():
    def top(count):
        trials = [trial(n, 1e-3, 5.0 - n / 100) for n in range(count)]
        return len(findings(study(*trials), seeded=True).top)

    assert [top(n) for n in (0, 2, 20, 50, 400)] == [0, 2, 3, 5, 10]


def test_only_complete_trials_count_and_maximizing_turns_the_order():
    trials = [
        trial(0, 1e-3, 2.0),
        trial(1, 2e-3, 1.0, state=TrialState.PRUNED),
        trial(2, 4e-3, 3.0, "l2"),
        trial(3, 8e-3, None, state=TrialState.FAILED),
    ]
    least = findings(study(*trials), seeded=True)
    assert ([t.number for t in least.top], least.complete, least.spread) == ([0, 2], 2, 1.0)
    most = findings(study(*trials, direction="maximize"), seeded=True)
    assert [t.number for t in most.top] == [2, 0]


def test_knobs_come_by_importance_with_the_values_of_the_top():
    found = findings(
        study(
            trial(0, 1e-3, 2.0),
            trial(1, 4e-3, 1.0, "l2"),
            trial(2, 2e-3, 3.0, "l2"),
            importances={"learning_rate": 0.2, "regularizer": 0.7},
        ),
        seeded=True,
    )
    choice, rate = found.ranges
    assert (choice.name, choice.best, choice.taken) == (
        "regularizer",
        "l2",
        (("l2", 2), ("none", 1)),
    )
    assert (rate.name, rate.best, rate.low, rate.high) == ("learning_rate", 4e-3, 1e-3, 4e-3)


def test_noise_is_known_only_where_a_configuration_was_repeated_from_another_seed():
    once = [trial(0, 1e-3, 2.0), trial(1, 2e-3, 1.9)]
    assert findings(study(*once), seeded=True).noise is None
    values = [1.50, 1.54, 1.52]
    again = [trial(n + 2, 3e-3, value) for n, value in enumerate(values)]
    found = findings(study(*once, *again), seeded=True)
    assert found.noise == pytest.approx(statistics.stdev(values))
    assert [(r.numbers, r.mean) for r in found.repeated] == [((2, 3, 4), pytest.approx(1.52))]
    assert found.level == 2  # 1.52 and 1.54 are within the noise of 1.50
    assert findings(study(*once, *again), seeded=False).noise is None


def test_a_searched_seed_is_no_part_of_a_configuration_and_one_run_twice_is_one():
    trials = [
        TrialData(n, TrialState.COMPLETE, {"learning_rate": 1e-3, "seed": seed}, value)
        for n, (seed, value) in enumerate([(1, 1.50), (2, 1.54), (1, 1.50)])
    ]
    (repeated,) = findings(study(*trials), seeded=True).repeated
    assert repeated.numbers == (0, 1)
    assert repeated.params == {"learning_rate": 1e-3}


def test_a_rival_beyond_the_noise_is_told_apart():
    trials = [trial(0, 1e-3, 1.0), trial(1, 1e-3, 1.01), trial(2, 2e-3, 1.5), trial(3, 2e-3, 1.52)]
    assert findings(study(*trials), seeded=True).level == 1


def test_cost_is_by_device_and_tells_what_was_lost():
    cost = Cost(
        [
            Spent("cpu", Outcome.OK, 3, 30.0),
            Spent("H100", Outcome.OK, 2, 300.0),
            Spent("H100", Outcome.LOST, 2, 12.0),
            Spent("cpu", Outcome.LOST, 1, 5.0),
            Spent("cpu", Outcome.DIVERGED, 1, 2.0),
        ],
        tokens=0,
        training=0.0,
    )
    assert cost.devices == {"H100": 312.0, "cpu": 37.0}
    assert list(cost.devices) == ["H100", "cpu"]
    assert cost.lost == {Outcome.LOST: (3, 17.0)}


def test_cost_is_read_from_attempts_and_their_last_reports(world: World):
    world.open()
    worker = world.worker()
    held = worker.claim()
    held.report((10, 2.0))
    held.finish("error", 10, "boom")
    again = worker.claim()
    metrics = {"validation_loss": 1.5}
    said = [
        wire.ReportItem(step=step, metrics=metrics, tokens=100 * step, wall_ms=50 * step)
        for step in (20, 30)
    ]
    again.send(said)
    again.finish("ok", 30)
    world.change("attempts", {"attempt": 1}, started_at=100.0, ended_at=107.0)
    world.change("attempts", {"attempt": 2}, started_at=110.0, ended_at=115.0)
    cost = world.reading.cost("study")
    assert sum(cost.devices.values()) == pytest.approx(12.0)
    assert cost.lost == {Outcome.ERROR: (1, pytest.approx(7.0))}
    assert (cost.tokens, cost.training) == (3_000, 1.5)


def test_an_axis_names_round_values():
    assert [text for _, text in Axis(0.0, 10.0).ticks] == ["0", "2", "4", "6", "8", "10"]
    log = Axis(-4.0, -1.0, kind="log")
    assert log.ticks[0] == (0.0, "1e-4")
    assert log.place(1e-1) == 1.0
    assert log.place(0.0) is None
    names = Axis(-0.5, 1.5, kind="category", categories=("none", "l2"))
    assert names.ticks == [(0.25, "none"), (0.75, "l2")]
    assert names.place("l1") is None


def test_names_that_have_no_room_in_one_row_take_turns_in_two():
    kinds = ("none", "l1", "l2", "decoupled")
    names = Axis(-0.5, 3.5, kind="category", categories=kinds)
    assert [[text for _, text in row] for row in names.rows_of_ticks(400)] == [[*kinds]]
    two = names.rows_of_ticks(180)
    assert [[text for _, text in row] for row in two] == [["none", "l2"], ["l1", "decoupled"]]
    assert [len(row) for row in names.rows_of_ticks(70)] == [1, 1]  # no room for more
    assert [len(row) for row in Axis(0.0, 10.0).rows_of_ticks(210)] == [3]


def test_what_stands_below_a_picture_lies_within_it():
    kinds = Entry(choice=("none", "l1", "l2", "decoupled"))
    space = build({"learning_rate": Entry(log=(1e-4, 1e-1)), "regularizer": kinds})
    for columns in (2, 4, 8):
        narrow = FIGURES["slices"].draw(StudyData((trial(0, 1e-2, 1.0),), space), columns)
        root = ET.fromstring(svg(narrow, "slices", width=420))  # noqa: S314
        height = float(root.get("viewBox").split()[3])
        texts = [e for e in root.iter() if e.tag.endswith("text")]
        assert {"l1", "decoupled", "regularizer"} <= {e.text for e in texts}
        assert max(float(e.get("y")) for e in texts) < height - 3  # room for a g


def test_a_legend_names_only_roles_that_are_shown():
    def named(*trials):
        figure = FIGURES["slices"].draw(study(*trials))
        return [t.name for t in figure.data if t.showlegend]

    assert named(trial(0, 1e-2, 1.0), trial(1, 1e-3, 2.0)) == ["complete", "best"]
    assert named(trial(0, 1e-2, 1.0)) == ["best"]


@pytest.mark.parametrize("kind", report._FIGURES)
@pytest.mark.parametrize("done", [0, 11, 40])
def test_a_still_picture_is_svg_with_every_trace(kind, done):
    stand_in = StandIn(done=done, trials=60)
    data = stand_in.snapshot("quickstart").data
    figure = FIGURES[kind].draw(data)
    root = ET.fromstring(svg(figure, 'a <title> & "more"'))  # noqa: S314
    space = "{http://www.w3.org/2000/svg}"
    assert root.tag in ("svg", f"{space}svg")
    assert root.get("aria-label") == 'a <title> & "more"'
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    shown = [t.name for t in figure.data if t.name and t.showlegend is not False]
    if len(shown) > 1:
        assert set(shown) <= set(texts)
    numbers = re.findall(r"-?\d+\.?\d*", "".join(e.get("d", "") for e in root.iter()))
    assert all(float(number) < 1e5 for number in numbers)
    assert "nan" not in ET.tostring(root, encoding="unicode").replace("unigram", "")


def test_a_point_stands_where_its_value_is():
    figure = FIGURES["rates"].draw(study(trial(0, 1e-2, 1.0), trial(1, 1e-3, 2.0)))
    root = ET.fromstring(svg(figure, "rates"))  # noqa: S314
    marks = [e.get("d") for e in root.iter() if e.get("stroke-linecap") == "round"]
    (low_x, low_y), (high_x, high_y) = re.findall(r"M([\d.]+) ([\d.]+)h0", marks[0])
    assert float(low_x) > float(high_x)  # the larger rate stands to the right
    assert float(low_y) > float(high_y)  # the smaller loss stands below


@pytest.fixture
def read():
    stand_in = StandIn(done=30, trials=40)
    stand_in.cost = lambda name: Cost([Spent("cpu", Outcome.OK, 30, 390.0)], 1_234_567, 300.0)
    return stand_in


@pytest.fixture
def client(read):
    app = FastAPI()
    app.state.reading = read
    problems.install(app)
    app.include_router(report.router)
    return TestClient(app)


def test_the_report_stands_alone_and_says_what_it_must(client, read):
    page = client.get("/studies/quickstart/report").text
    assert "<h1>quickstart</h1>" in client.get("/api/v1/studies/quickstart/report").text
    outside = re.findall(r"(?:src|href|url\(|@import|xlink:href|data-)[\"'=(]", page)
    assert (len(outside), "<script" in page) == (1, False)
    assert '<link rel="icon" href="data:image/svg+xml;base64,' in page  # the one address
    assert page.count("<svg viewBox") == 5
    best = read.best("quickstart")
    for said in (
        f"Trial {best.number}, at step 300",
        "No configuration was trained twice",
        "1,234,567",
        f"lmtune reproduce quickstart {best.number}",
        "learning_rate:",
        "71 %",
    ):
        assert said in page, said


def test_names_of_others_cannot_become_markup(client, read):
    read.description = "<script>alert(1)</script>"
    assert "<script>" not in client.get("/studies/quickstart/report").text


def test_a_study_without_an_answer_says_so(client, read):
    read.done = 0
    page = client.get("/studies/quickstart/report").text
    assert "there is no answer" in page
    assert "lmtune reproduce" not in page


def test_a_study_that_is_not_there_is_a_page_or_a_problem(client, read):
    page = client.get("/studies/none/report")
    assert (page.status_code, "Not here" in page.text) == (404, True)
    problem = client.get("/api/v1/studies/none/report")
    assert (problem.status_code, problem.json()["code"]) == (404, "not_found")


def test_a_paused_study_is_reported_too(client, read):
    read.state = StudyState.PAUSED
    assert client.get("/studies/quickstart/report").status_code == 200
