"""The study file: what is valid round-trips, what is wrong names its field and the remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given

from studies.errors import FieldError, InvalidInput
from studies.files import read_document
from studies.recipe import Recipe, trial_seed
from studies.spec import StudySpec, load_recipe, load_spec, parse_spec
from tests.studies.documents import documents, small


def errors_of(document: Any) -> list[FieldError]:
    with pytest.raises(InvalidInput) as caught:
        parse_spec(document)
    return list(caught.value.errors)


@given(documents())
def test_a_valid_study_round_trips_as_json_and_as_yaml(document: dict[str, Any]) -> None:
    spec = parse_spec(document)
    again = parse_spec(json.loads(json.dumps(spec.document())))
    assert again == spec
    assert again.document() == spec.document()
    assert parse_spec(yaml.safe_load(spec.yaml())) == spec
    assert again.space == spec.space


@given(documents())
def test_every_study_has_a_recipe_for_its_corpus_check(document: dict[str, Any]) -> None:
    spec = parse_spec(document)
    neediest = spec.neediest().train
    for name in ("batch_size", "sequence_length"):
        entry = document["search"].get(name, {})
        largest = max(entry.get("choice") or entry.get("log") or entry.get("uniform") or [1])
        assert getattr(neediest, name) >= largest or "when" in entry


# One wrong study each: what is changed, the field that must be named, words of the error.
BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"name": "a b"}, "name", "1 to 64"),
    ({"name": None}, "name", "is missing (add it)"),
    ({"data": None}, "data", "is missing (add it)"),
    ({"data": {}}, "data", "name exactly one text"),
    ({"data__path": "x.txt"}, "data", "not builtin and path"),
    ({"data__builtin": "stdlb"}, "data.builtin", "give one of stdlib"),
    ({"data": "corpus.txt"}, "data", "write `data: {builtin: stdlib}`"),
    ({"trian": {}}, "trian", "did you mean train?"),
    ({"search__learnig_rate": {"log": [1, 2]}}, "search.learnig_rate", "did you mean"),
    ({"train__learnig_rate": 1}, "train.learnig_rate", "did you mean learning_rate?"),
    ({"train__hidden_dim": 3}, "train.hidden_dim", "hidden_dim belongs under `model:`"),
    ({"train__steps": 0}, "train.steps", "give an integer at least 1"),
    ({"train__steps": "many"}, "train.steps", "'many' does not fit"),
    ({"train__optimizer": "adm"}, "train.optimizer", "give one of sgd, adam, adamw"),
    ({"train__warmup": float("nan")}, "train.warmup", "give a number at least 0, at most 1"),
    ({"model__dropout": 1.0}, "model.dropout", "give a number at least 0, below 1"),
    ({"search__dropout": {"uniform": [0.5, 0.1]}}, "search.dropout.uniform", "[0.1, 0.5]"),
    ({"search__dropout": {"uniform": [0.5, 0.5]}}, "search.dropout.uniform", "fix the knob under"),
    ({"search__dropout": {"uniform": [0, 1]}}, "search.dropout.uniform", "below 1"),
    ({"search__dropout": {"uniform": [0.5]}}, "search.dropout.uniform.1", "is missing"),
    ({"search__dropout": {"uniform": [0, 0.5], "step": 0.2}}, "search.dropout.uniform", "at 0.4"),
    ({"search__dropout": 0.5}, "search.dropout", "write {log: [LOW, HIGH]}"),
    ({"search__dropout": {}}, "search.dropout", "exactly one of log, uniform and choice"),
    ({"search__dropout": {"chioce": [0.1]}}, "search.dropout.chioce", "did you mean choice?"),
    ({"search__epsilon": {"log": [0, 1]}}, "search.epsilon.log", "must start above 0, not at 0"),
    ({"search__steps": {"choice": [1, 2]}}, "search.steps", "cannot be searched"),
    ({"search__layers": {"uniform": [1, 4], "step": 0.5}}, "search.layers.uniform", "integer"),
    ({"search__layers": {"log": [1.5, 4]}}, "search.layers.log", "give an integer"),
    ({"search__layers": {"log": [1, 4], "step": 1}}, "search.layers.log", "uniform range"),
    ({"search__optimizer": {"choice": ["adm"]}}, "search.optimizer.choice", "give one of sgd"),
    ({"search__optimizer": {"choice": []}}, "search.optimizer.choice", "at least one value"),
    ({"search__optimizer": {"choice": ["sgd", "sgd"]}}, "search.optimizer.choice", "distinct"),
    ({"search__optimizer": {"choice": [["sgd"]]}}, "search.optimizer.choice.0", "plain value"),
    ({"search__optimizer": {"uniform": [0, 1]}}, "search.optimizer.uniform", "choice: [sgd"),
    ({"search__batch_size": {"choice": [1, 2]}}, "search.batch_size", "also fixed under train"),
    ({"search__lambda": {"log": [1e-8, 1]}}, "search.lambda", "set train.regularizer"),
    (
        {"search__dropout": {"uniform": [0, 0.5], "when": {"optimizer": "sgd"}}},
        "search.dropout.when.optimizer",
        "search it with `choice`",
    ),
    (
        {
            "search__optimizer": {"choice": ["adam"]},
            "search__momentum": {"uniform": [0, 0.9], "when": {"optimizer": "sgd"}},
        },
        "search.momentum.when.optimizer",
        "'sgd' is not among its choices",
    ),
    (
        {
            "search__optimizer": {"choice": ["sgd"], "when": {"schedule": "cosine"}},
            "search__schedule": {"choice": ["cosine"], "when": {"optimizer": "sgd"}},
        },
        "search.optimizer.when.schedule",
        "remove one `when`",
    ),
    ({"search": [1]}, "search", "write `search: {learning_rate:"),
    ({"sampler": {"kind": "grid"}}, "search.learning_rate", "add `points: 4`"),
    ({"sampler": {"kind": "grid"}, "search": {}}, "search", "at least one searched knob"),
    ({"search__dropout": {"uniform": [0, 0.5], "points": 2}}, "search.dropout.points", "remove it"),
    ({"sampler": {"kind": "anneal"}}, "sampler.kind", "'random', 'tpe', 'qmc' or 'grid'"),
    ({"scheduler": {"kind": "asha", "min_steps": 9}}, "scheduler.min_steps", "train.steps (4)"),
    ({"scheduler": {"kind": "asha", "min_steps": 4}}, "scheduler.min_steps", "judges no trial"),
    ({"objective": {"metric": "accuracy"}}, "objective.metric", "'validation_loss'"),
    (
        {"objective": {"metric": "bits_per_byte"}, "search__kind": {"choice": ["gpt2", "bert"]}},
        "objective.metric",
        "take validation_loss",
    ),
    (
        {"search__kind": {"choice": ["gpt", "bert"]}, "objective": {"metric": "perplexity"}},
        "search.kind",
        "of hidden tokens for bert, of the next one for gpt (search them in two studies)",
    ),
    (
        {"search__tokenizer": {"choice": ["bytes", "characters"]}},
        "search.tokenizer",
        "fix it under `data:`, or take objective.metric bits_per_byte",
    ),
    (
        {"data__tokenizer": "bpe", "search__vocabulary_size": {"log": [500, 5_000]}},
        "search.vocabulary_size",
        "validation_loss is per token",
    ),
    (
        {
            "objective": {"metric": "bits_per_byte"},
            "search__tokenizer": {"choice": ["words", "bpe"]},
        },
        "search.tokenizer",
        "fix tokenizer and vocabulary_size under `data:`",
    ),
    ({"search__validation_fraction": {"uniform": [0.1, 0.5]}}, "search.validation_fraction",
     "cannot be searched"),
    ({"model": {"folder": "/models/a"}}, "model.folder", "set kind to the folder's family"),
    ({"budget": {"trials": 0}}, "budget.trials", "greater than or equal to 1"),
    ({"budget": {"wall_time": "ten minutes"}}, "budget.wall_time", "write 90s, 10m, 1h30m or 2d"),
    ({"budget": {"wall_time": "0s"}}, "budget.wall_time", "greater than 0"),
    ({"budget": {"trails": 3}}, "budget.trails", "did you mean trials?"),
    ({"model": {"kind": "gpt", "embedding_dim": 130}}, "model.heads", "a multiple of heads"),
    ({"model": {"kind": "gpt", "embedding_dim": 12}}, "model.heads", "learned positions"),
    ({"model": {"tied_weights": True}}, "model.tied_weights", "set tied_weights: false"),
    (
        {"model": {"kind": "gpt"}, "search__heads": {"uniform": [1, 8]}},
        "model.heads",
        "3 heads do not divide embedding_dim 128, at heads 3",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "field", "words"), BAD, ids=[f"{b[1]}-{i}" for i, b in enumerate(BAD)]
)
def test_a_wrong_study_names_the_field_and_the_remedy(
    changes: dict[str, Any], field: str, words: str
) -> None:
    errors = errors_of(small(**changes))
    assert field in [error.field for error in errors]
    assert words in " ".join(map(str, errors))
    assert "\n" not in " ".join(map(str, errors))


def test_a_field_is_named_once_and_all_wrong_fields_are() -> None:
    fields = [e.field for e in errors_of(small(train__steps=0, model__layers=0, nmae="x"))]
    assert sorted(fields) == ["model.layers", "nmae", "train.steps"]


def test_heads_that_are_never_used_need_not_divide() -> None:
    spec = parse_spec(
        small(
            search__kind={"choice": ["lstm", "gpt"]},
            search__heads={"choice": [3], "when": {"kind": "lstm"}},
        )
    )
    assert spec.space.names == ("learning_rate", "kind", "heads")


@pytest.mark.parametrize(
    "changes",
    [
        {"search__kind": {"choice": ["bert"]}},
        {"search__kind": {"choice": ["gpt", "bert"]}, "objective": {"metric": "tokens_per_second"}},
        {
            "objective": {"metric": "bits_per_byte"},
            "search__tokenizer": {"choice": ["bytes", "bpe"]},
            "search__vocabulary_size": {"log": [500, 5_000], "when": {"tokenizer": "bpe"}},
        },
        {
            "objective": {"metric": "tokens_per_second"},
            "search__tokenizer": {"choice": ["bytes", "words"]},
        },
        {
            "model": {"kind": "script", "command": ["python", "a.py"]},
            "search__vocabulary_size": {"log": [500, 5_000]},
        },
    ],
)
def test_trials_whose_objectives_compare_may_differ_in_tokens_and_kind(
    changes: dict[str, Any],
) -> None:
    assert set(parse_spec(small(**changes)).search) > {"learning_rate"}


@pytest.mark.parametrize("document", [None, [], "name: x", 3])
def test_what_is_no_mapping_is_no_study(document: Any) -> None:
    assert errors_of(document)[0].field == "study"


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172_800), (12, 12)]
)
def test_a_duration_is_text_or_seconds(text: str | int, seconds: float) -> None:
    assert parse_spec(small(budget={"wall_time": text})).budget.wall_time == seconds


def test_a_recipe_takes_the_sampled_values_and_a_seed_of_study_and_number_only() -> None:
    spec = parse_spec(small(sampler={"seed": 5}))
    recipe = spec.recipe({"learning_rate": 0.01}, 3)
    assert recipe.train.learning_rate == 0.01
    assert recipe.train.seed == trial_seed(5, 3)
    assert spec.recipe({"learning_rate": 0.02}, 3).train.seed == recipe.train.seed
    assert parse_spec(small(train__seed=11)).recipe({}, 3).train.seed == 11
    search = {"seed": {"choice": [1, 2]}, "compile": {"choice": [False, True]}}
    searched = parse_spec(small(search=search, sampler={"seed": 5}))
    assert searched.recipe({"seed": 2}, 3).train.seed == 2
    assert searched.recipe({}, 3).train.seed == trial_seed(5, 3)  # as its condition does not hold


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "study.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\na: 2", "the key 'a' stands twice"),
        ("? [1]\n: 2", "a key must be a name"),
        ('name: "x', "is not YAML"),
        ("when: 2026-99-99", "is not YAML"),
        (b"\xff\xfe", "is not UTF-8"),
        ("[" * 50_000, "nested too deep"),
        ("# " + "x" * (1 << 20), "over 1 MiB"),
    ],
)
def test_a_file_that_is_no_yaml_names_itself(tmp_path: Path, text: str | bytes, words: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InvalidInput, match=words) as caught:
        read_document(path)
    assert caught.value.errors[0].field == str(path)


def test_a_missing_study_file_names_itself(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="No such file"):
        load_spec(tmp_path / "none.yaml")


def test_a_study_file_may_be_json_and_may_write_1e_4(tmp_path: Path) -> None:
    assert load_spec(written(tmp_path, json.dumps(small()))) == parse_spec(small())
    text = "name: small\ndata: {builtin: stdlib}\nsearch: {learning_rate: {log: [1e-4, 1e-1]}}"
    assert load_spec(written(tmp_path, text)).search["learning_rate"].log == (1e-4, 1e-1)


def test_a_recipe_file_names_its_text_relative_to_itself(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, "data: {path: a.txt}\ntrain: {steps: 3}"))
    assert recipe.data.path == str(tmp_path / "a.txt")
    assert recipe.train.steps == 3
    with pytest.raises(InvalidInput, match=r"train\.stepz.*did you mean steps"):
        load_recipe(written(tmp_path, "data: {path: a.txt}\ntrain: {stepz: 3}"))


def test_every_field_of_a_recipe_comes_back(tmp_path: Path) -> None:
    recipe = parse_spec(small()).recipe({"learning_rate": 0.5}, 7)
    text = yaml.safe_dump(recipe.model_dump(mode="json", by_alias=True))
    assert load_recipe(written(tmp_path, text)) == recipe
    assert isinstance(recipe, Recipe)
    assert isinstance(parse_spec(small()), StudySpec)
