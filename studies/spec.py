"""The study file: objective, recipe, search space, sampler, scheduler, budget; validated whole."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ConfigDict, Field, ValidationError

from studies import explain
from studies import space as spaces
from studies.errors import FieldError, InvalidInput
from studies.files import read_document
from studies.knobs import written
from studies.parts import Budget, Objective, Part, Resources, Sampler, Scheduler
from studies.recipe import KNOBS, DataRecipe, ModelRecipe, Recipe, TrainRecipe, trial_seed
from studies.recipe.model import MASKED
from studies.space import Entry, FloatParam, IntParam, SearchSpace, extremes

NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
METRICS: Final = (
    "validation_loss",
    "bits_per_byte",
    "perplexity",
    "train_loss",
    "tokens_per_second",
)
_PER_TOKEN: Final = ("validation_loss", "perplexity", "train_loss")
_CORNERS: Final = 1_024  # combinations of extremes tried when a spec is checked


class StudySpec(Part):
    """A whole study, as a study file or `POST /api/v1/studies` gives it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "shakespeare-lstm",
                    "data": {"builtin": "stdlib", "tokenizer": "bytes"},
                    "model": {"kind": "lstm", "embedding_dim": 128, "hidden_dim": 256},
                    "train": {"steps": 300, "batch_size": 32, "sequence_length": 64},
                    "search": {
                        "learning_rate": {"log": [1e-4, 1e-1]},
                        "regularizer": {"choice": ["none", "l1", "l2"]},
                        "lambda": {"log": [1e-8, 1e-3], "when": {"regularizer": ["l1", "l2"]}},
                        "dropout": {"uniform": [0.0, 0.5]},
                    },
                    "sampler": {"kind": "tpe", "seed": 7},
                    "scheduler": {"kind": "asha", "min_steps": 50},
                    "budget": {"trials": 16, "wall_time": "10m"},
                }
            ]
        }
    )

    name: str = Field(pattern=NAME_PATTERN, description="letters, digits, dot, dash, underscore")
    description: str = Field("", max_length=2_000)
    data: DataRecipe
    model: ModelRecipe = ModelRecipe()
    train: TrainRecipe = TrainRecipe()
    search: dict[str, Entry] = Field(default_factory=dict)
    objective: Objective = Objective()
    sampler: Sampler = Sampler()
    scheduler: Scheduler = Scheduler()
    budget: Budget = Budget()
    resources: Resources = Resources()

    @cached_property
    def space(self) -> SearchSpace:
        """The typed search space; raises InvalidInput where an entry is wrong."""
        return spaces.build(self.search, own_names=self.model.kind == "script")

    @cached_property
    def precisions(self) -> frozenset[str]:
        """Those that a trial may be trained in."""
        entry = self.search.get("precision")
        return frozenset([self.train.precision, *map(str, (entry and entry.choice) or ())])

    @cached_property
    def most_devices(self) -> tuple[int, str]:
        """On how many devices any trial can be trained, and the field that says so."""
        if "streams" in taken(self, "windows"):
            return 1, "windows: streams"
        least = int(min(taken(self, "batch_size")))
        return least, f"batch_size: {least}"

    def lacking(self, said: Mapping[str, Any]) -> str | None:
        """Returns what a worker that says so of itself lacks to train a trial; None: nothing."""
        lacks = self.resources.lacking(said, self.precisions)
        has = said.get("devices", 1)
        if lacks or not isinstance(has, int) or has < 2 or self.model.kind == "script":
            return lacks
        most, why = self.most_devices
        return f"at most {most} device{'s' * (most > 1)} ({why})" if has > most else None

    def recipe(self, params: Mapping[str, Any], number: int) -> Recipe:
        """Returns the recipe of a trial.

        Args:
            params: the sampled values by knob name.
            number: the trial's number in the study, from 0; decides the seed with the study's,
                unless that is fixed or searched.

        Raises:
            InvalidInput: the sampled values do not fit together.
        """
        try:
            recipe = Recipe(data=self.data, model=self.model, train=self.train)
            if self.train.seed is None:  # a searched one goes before
                params = {"seed": trial_seed(self.sampler.seed, number), **params}
            return recipe.with_knobs(dict(params))
        except ValidationError as error:
            raise InvalidInput(field_errors(error.errors())) from None

    def neediest(self) -> Recipe:
        """Returns a recipe of the space that needs the longest text: check a corpus with it."""
        values: dict[str, Any] = {}
        for param in self.space:
            if param.active(values):
                values[param.name] = max(extremes(param), key=_need)
        return self.recipe(values, 0)

    def document(self) -> dict[str, Any]:
        """Returns the study as JSON values, with what was said and the sampler's seed."""
        said = self.model_dump(mode="json", by_alias=True, exclude_unset=True)
        said["sampler"] = {**said.get("sampler", {}), "seed": self.sampler.seed}
        return said

    def yaml(self) -> str:
        """Returns the study as a YAML study file."""
        return yaml.safe_dump(self.document(), sort_keys=False, allow_unicode=True)


def parse_spec(document: Any) -> StudySpec:
    """Returns the checked study that a decoded YAML or JSON document describes.

    Raises:
        InvalidInput: one FieldError for each wrong field.
    """
    if not isinstance(document, Mapping):
        raise InvalidInput.of("study", "is not a mapping", "write `name:`, `data:`, `search:` ...")
    try:
        spec = StudySpec.model_validate(document)
    except ValidationError as error:
        raise InvalidInput(field_errors(error.errors())) from None
    check(spec)
    return spec


def load_spec(path: Path) -> StudySpec:
    """Returns the checked study in a YAML or JSON file; raises InvalidInput."""
    return parse_spec(read_document(path))


def parse_recipe(document: Any) -> Recipe:
    """Returns the checked recipe that a decoded document describes; raises InvalidInput."""
    if not isinstance(document, Mapping):
        raise InvalidInput.of("recipe", "is not a mapping", "write `data:`, `model:`, `train:`")
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        raise InvalidInput(field_errors(error.errors())) from None


def load_recipe(path: Path) -> Recipe:
    """Returns the recipe in a YAML or JSON file; its `data.path` is relative to the file."""
    recipe = parse_recipe(read_document(path))
    if recipe.data.path is None:
        return recipe
    data = recipe.data.model_copy(update={"path": str(path.parent / recipe.data.path)})
    return recipe.model_copy(update={"data": data})


def check(spec: StudySpec) -> None:
    """Raises InvalidInput unless the parts of the study fit together."""
    errors = [*_fixed_and_searched(spec), *_scheduler_errors(spec)]
    space = spec.space  # raises for its own errors
    errors += [*_grid_errors(spec, space), *_lambda_errors(spec), *_device_errors(spec)]
    errors += [*_kind_errors(spec), *_token_errors(spec)]
    if not errors:
        errors += _corner_errors(spec, space)
    if errors:
        raise InvalidInput(errors)


def _fixed_and_searched(spec: StudySpec) -> list[FieldError]:
    fixed = {
        (type(part).model_fields[field].alias or field): section
        for section in ("data", "model", "train")
        for part in [getattr(spec, section)]
        for field in part.model_fields_set
    }
    return [
        FieldError(f"search.{name}", f"is also fixed under {fixed[name]}", "remove one of the two")
        for name in spec.search
        if name in fixed
    ]


def _scheduler_errors(spec: StudySpec) -> list[FieldError]:
    steps, every, least = spec.train.steps, spec.train.evaluate_every, spec.scheduler.min_steps
    if spec.scheduler.mode == "promote" and spec.scheduler.kind != "asha":
        return [FieldError("scheduler.mode", "only asha promotes", "remove it, or take asha")]
    if spec.scheduler.mode == "promote" and spec.model.kind == "script":
        message = "a script keeps no checkpoint to be promoted from"
        return [FieldError("scheduler.mode", message, "take mode: stop")]
    if spec.scheduler.kind == "none":
        return []
    if least > steps:
        message = f"{least} steps is more than train.steps ({steps})"
        return [FieldError("scheduler.min_steps", message, "lower it, or train longer")]
    first = -(-least // every) * every  # the evaluation at which a trial is judged first
    if first < steps:
        return []
    message = f"judges no trial: they end at step {steps}, with an evaluation each {every} steps"
    return [FieldError("scheduler.min_steps", message, "lower it or train.evaluate_every")]


def _grid_errors(spec: StudySpec, space: SearchSpace) -> list[FieldError]:
    ranges = [param for param in space if isinstance(param, FloatParam | IntParam)]
    if spec.sampler.kind != "grid":
        return [
            FieldError(f"search.{param.name}.points", "is for the grid sampler only", "remove it")
            for param in ranges
            if param.points is not None
        ]
    if not space.params:
        return [FieldError("search", "the grid sampler needs at least one searched knob")]
    return [
        FieldError(f"search.{param.name}", "the grid sampler needs points", "add `points: 4`")
        for param in ranges
        if param.points is None and (isinstance(param, FloatParam) and param.step is None)
    ]


def _kind_errors(spec: StudySpec) -> list[FieldError]:
    """Errors of an objective that the kinds of model do not have, or not in the same sense."""
    metric, kinds = spec.objective.metric, taken(spec, "kind")
    masked = [kind for kind in kinds if kind in MASKED]
    if masked and metric == "bits_per_byte":
        message = "a masked model says nothing of a text's bytes"
        return [FieldError("objective.metric", message, "take validation_loss")]
    if not masked or len(masked) == len(kinds) or metric not in _PER_TOKEN:
        return []
    others = ", ".join(kind for kind in kinds if kind not in MASKED)
    message = f"{metric} is of hidden tokens for {', '.join(masked)}, of the next one for {others}"
    return [FieldError("search.kind", message, "search them in two studies")]


def _token_errors(spec: StudySpec) -> list[FieldError]:
    """Errors of trials that do not compare, as they differ in what a token is."""
    metric, lossy = spec.objective.metric, "words" in taken(spec, "tokenizer")
    searched = [name for name in ("tokenizer", "vocabulary_size") if name in spec.search]
    compares = metric not in _PER_TOKEN and not (lossy and metric == "bits_per_byte")
    if compares or spec.model.kind == "script":  # whose tokens are its own
        return []
    message = f"{metric} is per token, and does not compare where tokens differ"
    remedy = "fix it under `data:`, or take objective.metric bits_per_byte"
    if lossy:
        message = f"{metric} does not compare over vocabularies of words, which leave words out"
        remedy = "fix tokenizer and vocabulary_size under `data:`"
    return [FieldError(f"search.{name}", message, remedy) for name in searched]


def _device_errors(spec: StudySpec) -> list[FieldError]:
    most, why = spec.most_devices
    if spec.resources.devices <= most or spec.model.kind == "script":
        return []
    message = f"a batch cannot be shared among {spec.resources.devices} devices with {why}"
    return [FieldError("resources.devices", message, "lower it, or change that")]


def _lambda_errors(spec: StudySpec) -> list[FieldError]:
    regularized = "regularizer" in spec.search or spec.train.regularizer != "none"
    if "lambda" not in spec.search or regularized:
        return []
    message = "has no effect while the regularizer is none"
    remedy = "set train.regularizer to l1, l2 or decoupled, or search it"
    return [FieldError("search.lambda", message, remedy)]


def _corner_errors(spec: StudySpec, space: SearchSpace) -> list[FieldError]:
    """Errors of the first combination of extreme values that makes no recipe."""
    corners = itertools.product(*(extremes(param) for param in space))
    for corner in itertools.islice(corners, _CORNERS):
        values: dict[str, Any] = {}
        for param, value in zip(space, corner, strict=True):
            if param.active(values):
                values[param.name] = value
        try:
            spec.recipe(values, 0)
        except InvalidInput as error:
            return [_with_values(e, values) for e in error.errors]
    return []


def _with_values(error: FieldError, values: Mapping[str, Any]) -> FieldError:
    """Returns the error with the searched values of its section that led to it."""
    section = error.field.partition(".")[0]
    said = [
        f"{n} {written(v)}" for n, v in values.items() if n in KNOBS and KNOBS[n].section == section
    ]
    message = f"{error.message}, at {', '.join(said)}" if said else error.message
    return FieldError(error.field, message, error.remedy)


def taken(spec: StudySpec, name: str) -> list[Any]:
    """Returns the values that a knob has in trials: choices, the ends of a range, or one."""
    param = next((param for param in spec.space if param.name == name), None)
    values = [] if param is None else list(extremes(param))
    if param is None or param.when:  # where it is not searched
        values.append(getattr(spec, KNOBS[name].section).model_dump(by_alias=True)[name])
    return values


def _need(value: Any) -> float:
    """Returns what makes a value need more text: its size, or how few tokens it finds."""
    return float(value == "words") if isinstance(value, str) else float(value)


def field_errors(errors: Sequence[Any]) -> list[FieldError]:
    """Returns pydantic's error list in lmtune's form: one per field, with a remedy if known."""
    return explain.field_errors(errors, StudySpec)
