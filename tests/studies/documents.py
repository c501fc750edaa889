"""Study documents for tests: a small valid one, and hypothesis strategies for any valid one."""

from __future__ import annotations

import copy
import math
from typing import Any

from hypothesis import strategies as st

from studies.knobs import Knob
from studies.recipe import KNOBS

SMALL: dict[str, Any] = {
    "name": "small",
    "data": {"builtin": "stdlib"},
    "model": {"embedding_dim": 8, "hidden_dim": 8},
    "train": {"steps": 4, "batch_size": 2, "sequence_length": 8, "evaluate_every": 2},
    "search": {"learning_rate": {"log": [1e-4, 1e-1]}},
    "budget": {"trials": 2},
}


def small(**changes: Any) -> dict[str, Any]:
    """Returns SMALL with dotted paths set: small(search__dropout={...}); None takes one away."""
    document = copy.deepcopy(SMALL)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = document
        for parent in parents:
            place = place.setdefault(parent, {})
        if value is None:
            place.pop(last, None)
        else:
            place[last] = value
    return document


# What does not fit every other value; the tests of single errors look at these.
_ENTANGLED = ("heads", "embedding_dim", "hidden_dim", "tied_weights", "kind", "positions")
_ENTANGLED += ("tokenizer", "vocabulary_size")
NUMBERS = [k for k in KNOBS.values() if k.searchable and k.kind in ("int", "float")]
NAMES = [k for k in KNOBS.values() if k.searchable and k.choices]


def values_of(knob: Knob) -> st.SearchStrategy[Any]:
    """Returns a strategy of single values within the knob's bounds."""
    if knob.choices:
        return st.sampled_from(knob.choices)
    if knob.kind == "int":
        return st.integers(int(knob.low or 0), min(int(knob.high or 0), 10**6))
    return st.floats(
        knob.low,
        knob.high,
        exclude_min=knob.low_open,
        exclude_max=knob.high_open,
        allow_subnormal=False,
    )


@st.composite
def ranges(draw: st.DrawFn, knob: Knob) -> dict[str, Any]:
    """Returns an entry `log` or `uniform` of a number."""
    low, high = sorted((draw(values_of(knob)), draw(values_of(knob))))
    if low == high or math.isinf(high - low):
        return {"choice": [low]}
    if low > 0 and draw(st.booleans()):
        return {"log": [low, high]}
    return {"uniform": [low, high]}


@st.composite
def choices(draw: st.DrawFn, knob: Knob) -> dict[str, Any]:
    """Returns an entry `choice` of any knob."""
    values = draw(st.lists(values_of(knob), min_size=1, max_size=4, unique=True))
    return {"choice": values}


@st.composite
def searches(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    """Returns a valid search section, some of it conditional, in any order."""
    names = draw(st.lists(st.sampled_from(NAMES), max_size=4, unique_by=lambda k: k.name))
    numbers = draw(st.lists(st.sampled_from(NUMBERS), max_size=5, unique_by=lambda k: k.name))
    free = [k for k in (*names, *numbers) if k.name not in _ENTANGLED]
    search = {
        k.name: draw(choices(k) if k.choices else st.one_of(ranges(k), choices(k))) for k in free
    }
    governors = [k.name for k in free if k.choices]
    for index, name in enumerate(search):
        earlier = [g for g in governors if list(search).index(g) < index]
        if earlier and draw(st.booleans()):
            governor = draw(st.sampled_from(earlier))
            search[name]["when"] = {governor: draw(st.sampled_from(search[governor]["choice"]))}
    if "lambda" in search and "regularizer" not in search:
        del search["lambda"]
    return dict(draw(st.permutations(list(search.items()))))


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Returns any valid study document with the small model."""
    document: dict[str, Any] = {
        "name": draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)),
        "data": draw(st.sampled_from([{"builtin": "stdlib"}, {"path": "a.txt"}])),
        "search": draw(searches()),
    }
    if draw(st.booleans()):
        document["budget"] = {"trials": draw(st.integers(1, 10**6)), "wall_time": "1h30m"}
    if draw(st.booleans()):
        document["sampler"] = {"kind": draw(st.sampled_from(["random", "tpe", "qmc"]))}
    if draw(st.booleans()):
        document["scheduler"] = {"kind": draw(st.sampled_from(["none", "median", "asha"]))}
    return document
