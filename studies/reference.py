"""docs/search-space.md, made of the knob table and the models: `python -m studies.reference`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from studies.knobs import Knob, row, written
from studies.parts import Budget, Objective, Resources, Sampler, Scheduler
from studies.recipe import KNOBS
from studies.space import Entry
from studies.spec import StudySpec

FILE: Final = Path(__file__).parents[1] / "docs" / "search-space.md"
_HEAD: Final = """\
# The study file

<!-- Written by `python -m studies.reference` from studies/recipe/, space.py and spec.py. -->

A study is a YAML or JSON document. It is checked whole before anything runs; each error names
the field and the remedy. `lmtune catalog quickstart > mine.yaml` prints a start.

```yaml
name: shakespeare-lstm
data: {path: corpus.txt, tokenizer: bytes}   # relative to this file; `lmtune` uploads it
model: {kind: lstm, embedding_dim: 128, hidden_dim: 256}
train: {steps: 1500, batch_size: 32, sequence_length: 128, schedule: cosine, warmup: 0.05}
search:
  learning_rate: {log: [1.0e-4, 1.0e-1]}
  regularizer: {choice: [none, l1, l2]}
  lambda: {log: [1.0e-8, 1.0e-2], when: {regularizer: [l1, l2]}}
  dropout: {uniform: [0.0, 0.5]}
objective: {metric: validation_loss, direction: minimize}
sampler: {kind: tpe, seed: 7}
scheduler: {kind: asha, min_steps: 100, reduction_factor: 3}
budget: {trials: 16, wall_time: 10m}
```
"""
_SEARCH: Final = """\
Each entry names a knob, without its section, and says over what it is searched. Any knob below
that is marked searchable can stand here; then it may not be fixed in its section too. A knob that
is neither fixed nor searched has its default. Both ends of a range belong to it. Whole numbers
stay whole, in log scale too.
"""
_CONDITIONS: Final = """\
`when` makes an entry conditional: `lambda: {log: [1.0e-8, 1.0e-2], when: {regularizer: [l1, l2]}}`
is searched, and recorded, only in trials whose regularizer is l1 or l2; elsewhere λ has its
default, 0. The governing knob has to be searched with `choice`; several must all hold; conditions
may be nested, never circular. The order of the entries does not matter.

Some knobs that are searched in vain, as the regularizer while λ is 0 or Adam's momentum, are not
refused: `lmtune create`, `lmtune up` and the form of a new study name them.
"""
_SHAPES: Final = {
    "log": "[LOW, HIGH]",
    "uniform": "[LOW, HIGH]",
    "choice": "[A, B, ...]",
    "when": "{KNOB: VALUE} or {KNOB: [A, B]}",
    "name": "1 to 64 characters",
    "wall_time": "a duration: 90s, 10m, 1h30m, 2d",
}
_PLACES: Final = {
    "data": "One of `builtin`, `path` and `sha256` names the text.",
    "model": "`dropout` acts on the embeddings and on the output of each LSTM layer; in a gpt on"
    " the embeddings, the attention weights, and the output of each attention and MLP. Each place"
    " has a knob of its own beside it. Evaluation has none.",
    "train": "θ are the parameters that `regularized` names. Augmentation and label smoothing act"
    " in training only, and `train_loss` has them in it. With `wsd`, runs that differ in `steps`,"
    " `cooldown` and `final_fraction` only, and warm up over as many steps, are one run until the"
    " first of them cools down: `lmtune-worker --recipe FILE --from CHECKPOINT` branches from any"
    " step before.",
}
_KINDS: Final = {
    "sampler": {
        "random": "Each value drawn by itself, even over its range.",
        "tpe": "Tree-structured Parzen estimator, multivariate: models where good trials lie, after"
        " `startup_trials` random ones. A condition splits the space into groups, each modelled"
        " by itself. Source: arXiv:2304.11127.",
        "qmc": "A scrambled Sobol sequence: fills the space evenly; knobs under a condition are"
        " random. Needs the extra `samplers` on the server.",
        "grid": "Every combination of the choices and of `points` values on each range (or its"
        " steps), in the `order` asked for: descending tries large learning rates first. The study"
        " ends when the points are used up.",
    },
    "scheduler": {
        "none": "Every trial trains to its end.",
        "median": "From `min_steps` on, a trial whose best value so far is worse than the median of"
        " the complete trials at this step is pruned. Source: Vizier, Golovin et al. 2017.",
        "asha": "At rungs, `min_steps` times powers of `reduction_factor`, a trial goes on only"
        " while it is among the best 1/`reduction_factor` of all that came there. With `mode:"
        " promote` the others are not stopped but paused with a checkpoint, and go on from it once"
        " they are among the best of all that have come there since; those that never are end"
        " PRUNED with the study."
        " Source: arXiv:1810.05934.",
    },
}


_PARTS = (Objective, Sampler, Scheduler, Budget, Resources)


def markdown() -> str:
    """Returns the whole document."""
    parts = [
        _HEAD,
        "## search\n",
        _SEARCH,
        _fields(Entry),
        _CONDITIONS,
        *(part for section in ("data", "model", "train") for part in _section(section)),
        *(part for model in _PARTS for part in _model(model)),
        "## name, description\n",
        _fields(StudySpec, ("name", "description")),
    ]
    return "\n".join(parts)


def _section(section: str) -> Iterator[str]:
    yield f"## {section}\n"
    yield _PLACES[section] + "\n"
    knobs = [knob for knob in KNOBS.values() if knob.section == section]
    heads = ("knob", "values", "default", "unit", "searchable", "meaning", "source")
    yield _table(heads, map(_knob_row, knobs))


def _knob_row(knob: Knob) -> tuple[str, ...]:
    default = "" if knob.default is None else f"`{written(knob.default)}`"
    values = knob.domain.removeprefix("one of ")
    searchable = "yes" if knob.searchable else ""
    return (f"`{knob.name}`", values, default, knob.unit, searchable, knob.meaning, knob.source)


def _model(model: type[BaseModel]) -> Iterator[str]:
    yield f"## {model.__name__.lower()}\n"
    yield f"{(model.__doc__ or '').strip()}\n"
    yield _fields(model)
    for kind, meaning in _KINDS.get(model.__name__.lower(), {}).items():
        yield f"### {kind}\n\n{meaning}\n"


def _fields(model: type[BaseModel], names: Iterable[str] = ()) -> str:
    chosen = names or model.model_fields
    rows = [_field_row(name, model.model_fields[name]) for name in chosen]
    return _table(("field", "values", "default", "meaning"), rows)


def _field_row(name: str, info: FieldInfo) -> tuple[str, ...]:
    default = (
        "" if info.default in (None, "") or info.is_required() else f"`{written(info.default)}`"
    )
    return (f"`{name}`", _values(name, info), default, info.description or "")


def _values(name: str, info: FieldInfo) -> str:
    if name in _SHAPES:
        return _SHAPES[name]
    return row("train", name, info).domain.removeprefix("one of ")


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    body = [[text.replace("|", "\\|") for text in row] for row in (heads, *rows)]
    body.insert(1, ["---"] * len(body[0]))
    return "".join(f"| {' | '.join(row)} |\n" for row in body)


if __name__ == "__main__":
    FILE.write_text(markdown(), encoding="utf-8")
