"""Brushes: parts of axes, of which alone the table and the figures tell."""

import pytest

URL = "/api/v1/studies/quickstart"


@pytest.fixture
def rows(client):
    def ask(*brush):
        answer = client.get(f"{URL}/table", params={"brush": brush, "limit": 1_000})
        assert answer.status_code == 200, answer.text
        return {row["number"]: row for row in answer.json()["rows"]}

    return ask


def params(rows):
    return {number: row["params"] for number, row in rows.items()}


@pytest.mark.parametrize(
    ("brush", "low", "high"),
    [
        ("learning_rate:1e-3:0.01", 1e-3, 1e-2),
        ("learning_rate::0.01", 0, 1e-2),
        ("learning_rate:1e-3:", 1e-3, 1),
    ],
)
def test_the_table_keeps_the_numbers_that_are_brushed(rows, brush, low, high):
    every = params(rows())
    kept = {n for n, known in every.items() if low <= known["learning_rate"] <= high}
    assert rows(brush).keys() == kept
    assert 0 < len(kept) < len(every)


@pytest.mark.parametrize(
    ("brush", "wanted"),
    [
        ("regularizer:l2:l2", {"l2"}),
        ("regularizer:none:l1", {"none", "l1"}),
        ("regularizer:l1:", {"l1", "l2"}),
        ("regularizer:gone:gone", set()),
        ("regularizer:gone:l1", {"l1"}),
    ],
)
def test_the_table_keeps_the_choices_that_are_brushed(rows, brush, wanted):
    kept = {n for n, known in params(rows()).items() if known["regularizer"] in wanted}
    assert rows(brush).keys() == kept


@pytest.mark.parametrize(
    ("brush", "low", "high"),
    [("validation_loss::1.7", 0, 1.7), ("validation_loss:1.6:1.7", 1.6, 1.7)],
)
def test_the_table_keeps_the_values_that_are_brushed(rows, brush, low, high):
    values = {n: row["value"] for n, row in rows().items()}
    kept = {n for n, value in values.items() if value is not None and low <= value <= high}
    assert rows(brush).keys() == kept
    assert 0 < len(kept) < len([v for v in values.values() if v is not None])


def test_a_trial_lies_in_all_brushes(rows):
    low = params(rows("learning_rate::3e-3"))
    both = rows("learning_rate::3e-3", "lambda::")
    assert both.keys() == {n for n, known in low.items() if "lambda" in known} != set()
    assert rows("nothing:0:1") == rows()


@pytest.mark.parametrize(
    "brush",
    ["x", "learning_rate:0", "learning_rate:x:1", "learning_rate::1:2", "validation_loss::x"],
)
@pytest.mark.parametrize("path", ["table", "figures/rates"])
def test_a_brush_that_says_nothing_is_refused(client, path, brush):
    assert client.get(f"{URL}/{path}", params={"brush": brush}).status_code == 422


@pytest.mark.parametrize("brush", ["learning_rate::3e-3", "validation_loss::1.7"])
def test_a_figure_shows_what_is_brushed(client, rows, brush):
    def drawn(kind, *brush):
        answer = client.get(f"{URL}/figures/{kind}", params={"brush": brush})
        assert answer.status_code == 200, answer.text
        traces = answer.json()["data"]
        return {n for trace in traces for n in trace.get("customdata") or () if n is not None}

    for kind in ("rates", "timeline", "devices", "slices"):
        assert drawn(kind, brush) == drawn(kind) & rows(brush).keys() != drawn(kind)


def test_what_matters_is_of_the_trials_that_are_brushed(client, rows):
    def bars(**query):
        return client.get(f"{URL}/figures/importances", params=query).json()["data"][0]

    assert len(rows("learning_rate::3e-3")) < len(rows())
    assert bars(brush="learning_rate::3e-3") != bars()
