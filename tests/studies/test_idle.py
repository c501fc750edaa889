"""What is searched in vain is said, and nothing else is."""

import pytest

from studies.files import catalog
from studies.idle import NEEDS, idle
from studies.recipe import KNOBS
from studies.spec import load_spec, parse_spec

RANGE = {"uniform": [0.1, 0.5]}


def said(search: dict, **sections: dict) -> list[str]:
    document = {"name": "s", "data": {"builtin": "stdlib"}, "search": search, **sections}
    return [str(notice) for notice in idle(parse_spec(document))]


def test_a_regularizer_is_idle_while_lambda_is_0():
    search = {"regularizer": {"choice": ["l1", "l2"]}}
    notice = "search.regularizer: changes nothing while lambda is 0"
    assert said(search) == [f"{notice} (remove it, or let lambda be above 0)"]
    assert said(search, train={"lambda": 1e-4}) == []
    assert said({**search, "lambda": {"log": [1e-6, 1e-2]}}) == []


def test_a_searched_choice_wakes_a_knob_only_where_it_holds_a_value_that_does():
    search = {"momentum": RANGE, "optimizer": {"choice": ["adam", "adamw"]}}
    (notice,) = said(search)
    assert "changes nothing while optimizer is adam or adamw" in notice
    assert "let optimizer be sgd or muon" in notice
    search["optimizer"]["choice"].append("sgd")
    assert said(search) == []


def test_a_choice_under_a_condition_has_its_default_elsewhere():
    search = {
        "kind": {"choice": ["lstm", "gpt"]},
        "optimizer": {"choice": ["sgd", "adam"], "when": {"kind": "lstm"}},
        "weight_decay": RANGE,  # of adamw, where the kind is gpt
    }
    assert said(search) == []


def test_numbers_are_read_as_the_search_reads_them():
    search = {"regularizer": {"choice": ["l1", "l2"]}, "lambda": {"choice": ["1e-6", 1e-4]}}
    assert said(search) == []


def test_a_range_wakes_a_knob_by_its_upper_end():
    assert said({"span_length": {"uniform": [2, 5]}, "span_masking": {"uniform": [0.0, 0.2]}}) == []


@pytest.mark.parametrize(("name", "kinds"), [
    ("embedding_dropout", ["llama", "qwen3", "qwen2"]),
    ("hidden_dropout", ["llama", "qwen2"]),
    ("output_dropout", ["gpt2", "llama"]),
])  # fmt: skip
def test_a_dropout_is_idle_where_no_kind_has_its_place(name, kinds):
    search = {name: RANGE, "kind": {"choice": kinds}}
    (notice,) = said(search)
    assert f"search.{name}: changes nothing while kind is {' or '.join(kinds)}" in notice
    search["kind"]["choice"].append("gpt")
    assert said(search) == []


def test_an_lstms_hidden_dropout_needs_two_layers():
    search = {"hidden_dropout": RANGE}
    notice = "search.hidden_dropout: changes nothing while layers is 1"
    assert said(search) == [f"{notice} (remove it, or let layers be above 1)"]
    assert said(search, model={"layers": 2}) == []
    assert said({**search, "layers": {"choice": [1, 2]}}) == []
    assert said({**search, "kind": {"choice": ["lstm", "gpt"]}}) == []


def test_a_folder_has_the_shape():
    model = {"kind": "gpt2", "folder": "/models/mine"}
    search = {"heads": {"choice": [2, 4]}, "hidden_dim": {"choice": [8, 16]}, "dropout": RANGE}
    for notice, name in zip(said(search, model=model), ("heads", "hidden_dim"), strict=True):
        assert notice == (
            f"search.{name}: changes nothing while folder is /models/mine"
            " (remove it, or let folder be unset)"
        )
    assert said(search, model={"kind": "gpt2"}) == []


def test_a_script_has_knobs_of_its_own():
    model = {"kind": "script", "command": ["python", "train.py"]}
    assert said({"momentum": RANGE}, model=model) == []


@pytest.mark.parametrize("name", catalog())
def test_no_ready_study_searches_in_vain(name):
    assert list(idle(load_spec(catalog()[name]))) == []


def test_the_table_names_knobs_and_their_values():
    for name, (other, values) in NEEDS.items():
        assert KNOBS[name].searchable
        assert values == 0 or set(values) <= set(KNOBS[other].choices or ())
