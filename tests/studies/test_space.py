"""The search space: order, bounds and conditions, for any valid section."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from studies.recipe import KNOBS
from studies.space import CategoricalParam, Entry, FloatParam, IntParam, SearchSpace, build
from tests.studies.documents import searches


def built(search: dict[str, Any]) -> SearchSpace:
    return build({name: Entry.model_validate(entry) for name, entry in search.items()})


@given(searches())
def test_every_entry_becomes_a_parameter_after_those_that_govern_it(search: dict[str, Any]) -> None:
    names = built(search).names
    assert sorted(names) == sorted(search)
    for name, entry in search.items():
        assert all(names.index(governor) < names.index(name) for governor in entry.get("when", {}))


@given(searches())
def test_bounds_and_choices_are_values_of_the_knob(search: dict[str, Any]) -> None:
    for param in built(search):
        knob = KNOBS[param.name]
        match param:
            case CategoricalParam():
                assert all(knob.check(choice) == choice for choice in param.choices)
            case FloatParam() | IntParam():
                assert knob.check(param.low) < knob.check(param.high)
                assert type(param.low).__name__ == knob.kind
                assert param.low > 0 or not param.log


@given(searches(), st.data())
def test_only_an_active_governor_activates(search: dict[str, Any], data: st.DataObject) -> None:
    space = built(search)
    values: dict[str, Any] = {}
    for param in space:
        if param.active(values):
            match param:
                case CategoricalParam():
                    values[param.name] = data.draw(st.sampled_from(param.choices))
                case FloatParam() | IntParam():
                    values[param.name] = param.low
    for param in space:
        met = all(values.get(other) in accepted for other, accepted in param.when.items())
        assert (param.name in values) == met


def test_the_files_order_is_kept_where_no_condition_asks_for_another() -> None:
    names = ["dropout", "learning_rate", "momentum", "warmup"]
    assert built({n: {"uniform": [0.1, 0.5]} for n in names}).names == tuple(names)


def test_a_chain_of_conditions_is_put_in_order() -> None:
    space = built(
        {
            "lambda": {"log": [1e-8, 1e-2], "when": {"regularizer": ["l1", "l2"]}},
            "regularizer": {"choice": ["none", "l1", "l2"], "when": {"optimizer": "sgd"}},
            "optimizer": {"choice": ["sgd", "adam"]},
        }
    )
    assert space.names == ("optimizer", "regularizer", "lambda")
    assert space.conditional


def test_a_condition_on_an_absent_governor_is_not_met() -> None:
    (param,) = built({"dropout": {"uniform": [0, 0.5]}})
    assert param.active({})
    space = built(
        {
            "regularizer": {"choice": ["none", "l1"]},
            "lambda": {"log": [1e-8, 1], "when": {"regularizer": "l1"}},
        }
    )
    lam = space.params[1]
    assert not lam.active({})
    assert not lam.active({"regularizer": "none"})
    assert lam.active({"regularizer": "l1"})
