"""Drafts: a study is checked, drawn from and estimated, and nothing is made."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from service.dispatch.draft import draft
from service.routes.drafts import _PARTS, fields
from service.tuning import preview
from studies.errors import InvalidInput
from studies.files import catalog, read_document
from studies.recipe import KNOBS
from studies.space import Entry, build
from studies.spec import StudySpec, parse_spec
from tests.harness.process import ROOT
from tests.service.world import World, spec

SEARCH = {
    "learning_rate": {"log": [1e-4, 1e-1]},
    "regularizer": {"choice": ["none", "l1"]},
    "lambda": {"log": [1e-8, 1e-2], "when": {"regularizer": "l1"}},
    "batch_size": {"uniform": [8, 24], "step": 16},
}


def test_a_draft_is_a_study_file_with_what_it_would_cost(small_world: World) -> None:
    document = spec("mine", search=SEARCH).document()
    said = draft(small_world.ctx, document)
    assert yaml.safe_load(said.yaml) == said.spec == document
    most = 8 * 30 * 128  # trials, steps, tokens of a sequence
    assert most * 8 < said.tokens < most * 24
    assert said.tokens == pytest.approx(most * 16, rel=0.1)
    assert said.seconds is None  # no study has told how fast it is
    assert said.notes == []
    assert small_world.rows("studies") == []


def test_a_draft_says_what_is_searched_in_vain(small_world: World) -> None:
    vain = {"regularizer": SEARCH["regularizer"], "learning_rate": SEARCH["learning_rate"]}
    (note,) = draft(small_world.ctx, spec("mine", search=vain).document()).notes
    assert note.startswith("search.regularizer: changes nothing while lambda is 0")


def test_its_time_is_that_of_the_newest_study_of_its_kind(small_world: World) -> None:
    small_world.open()
    small_world.open("other", model={"kind": "gpt"})
    held = small_world.worker().claim()
    item = {"step": 10, "metrics": {"validation_loss": 1.0}, "tokens": 40_960, "wall_ms": 10_000}
    from studies.wire import ReportItem

    held.send([ReportItem(**item)])
    said = draft(small_world.ctx, spec("mine").document())
    assert said.tokens_per_second == 4_096.0
    assert said.seconds == pytest.approx(said.tokens / 4_096)
    limited = spec("mine", budget={"trials": 8, "wall_time": "1s"}).document()
    assert draft(small_world.ctx, limited).seconds == 1.0
    other = draft(small_world.ctx, spec("mine", model={"kind": "gpt"}).document())
    assert other.tokens_per_second is None


def test_values_are_drawn_as_the_space_says(small_world: World) -> None:
    study = spec(search=SEARCH)
    drawn = preview.draw(study)
    assert drawn == preview.draw(study)
    shown = {param.name: dict(preview.histogram(param, drawn)) for param in study.space}
    assert sum(shown["learning_rate"].values()) == preview.DRAWS
    assert len([n for n in shown["learning_rate"].values() if n]) == preview.BINS
    assert set(shown["regularizer"]) == {"none", "l1"}
    assert sum(shown["lambda"].values()) == shown["regularizer"]["l1"]
    assert [n > 0 for n in shown["batch_size"].values()] == [True, *[False] * 10, True]


def test_what_is_wrong_is_named(small_world: World) -> None:
    with pytest.raises(InvalidInput, match=r"train\.steps"):
        draft(small_world.ctx, {**spec("mine").document(), "train": {"steps": 0}})
    with pytest.raises(InvalidInput, match="is not a mapping"):
        draft(small_world.ctx, [])


FILES = [*catalog().values(), *sorted((ROOT / "studies" / "examples").glob("*.yaml"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_form_says_what_a_ready_study_says(path: Path) -> None:
    document = read_document(path)
    study = parse_spec(document)
    sections = ("data", "model", "train", "own")
    found = [field for section in sections for field in fields(section, document)]
    assert {field.knob.name for field in found if field.mode != "fixed"} == set(study.search)
    own = {field.knob.name for field in found if field.own}
    assert own == set(study.search) - set(KNOBS)
    assert all(field.whole for field in found if field.knob.name == "units")
    steps = next(field for field in found if field.path == "train.steps")
    assert int(steps.value) == study.train.steps


@pytest.mark.parametrize("kind", ["log", "uniform"])
def test_the_form_begins_with_ranges_that_the_knobs_may_have(kind: str) -> None:
    offered = [f for part in ("model", "train", "data") for f in fields(part, {})]
    numbers = {f.knob.name: f for f in offered if kind in f.modes}
    assert {"learning_rate", "lambda", "dropout", "momentum", "beta2", "patience"} <= set(numbers)
    for name, field in numbers.items():
        build({name: Entry(**{kind: field.ends})})
        assert 0 < field.ends[0] < field.ends[1], name


def test_the_form_has_a_place_for_all_that_an_entry_may_say() -> None:
    entry = {"uniform": [0.0, 0.4], "step": 0.1, "when": {"optimizer": "sgd"}}
    found = {f.knob.name: f for f in fields("train", {"search": {"momentum": entry}})}
    places = {"log", "uniform", "choice", *found["momentum"].extras}
    assert places == set(Entry.model_fields)
    said = {"step": "0.1", "points": "", "when": '{"optimizer": "sgd"}'}
    assert found["momentum"].extras == said
    assert found["learning_rate"].extras == dict.fromkeys(said, "")
    assert found["optimizer"].extras == {"when": ""}


def test_the_form_has_a_place_for_every_part_of_a_study_file() -> None:
    placed = {"name", "description", "data", "model", "train", "search", *_PARTS}
    assert set(StudySpec.model_fields) == placed
