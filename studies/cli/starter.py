"""A first study file, made of five answers: commented, valid, and meant to be changed by hand."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from studies.errors import InvalidInput
from studies.explain import near
from studies.parts import Duration

KINDS: Final = ("lstm", "gpt", "gpt2", "llama", "qwen2", "qwen3")
DEVICES: Final = ("cpu", "gpu")
DEFAULT_KNOBS: Final = "learning_rate, regularizer, dropout"
_ENDLESS: Final = 1_000  # trials of a study that a time ends
_SHAPES: Final = {  # assumption: a first study ends within minutes on each
    ("lstm", "cpu"): {"embedding_dim": 128, "hidden_dim": 256, "layers": 1},
    ("lstm", "gpu"): {"embedding_dim": 512, "hidden_dim": 1024, "layers": 2},
    ("gpt", "cpu"): {"embedding_dim": 64, "hidden_dim": 256, "layers": 2, "heads": 4},
    ("gpt", "gpu"): {"embedding_dim": 384, "hidden_dim": 1536, "layers": 6, "heads": 6},
}
_TRAINING: Final = {
    "cpu": {"steps": 600, "batch_size": 16, "sequence_length": 64, "evaluate_every": 60},
    "gpu": {"steps": 2000, "batch_size": 64, "sequence_length": 256, "evaluate_every": 200},
}
_RATES: Final = {"lstm": "[1.0e-3, 3.0e-2]", "gpt": "[3.0e-4, 1.0e-2]"}
# What `search` says of each knob that is offered; the learning rate's range is its model's.
_RANGES: Final[Mapping[str, tuple[str, ...]]] = {
    "learning_rate": ("learning_rate: {{log: {rates}}}  # even in log scale",),
    "regularizer": (
        "regularizer: {{choice: [none, l1, l2]}}  # J + λ‖θ‖₁ or J + λ‖θ‖₂²",
        "lambda: {{log: [1.0e-8, 1.0e-3], when: {{regularizer: [l1, l2]}}}}  # only with a penalty",
    ),
    "dropout": ("dropout: {{uniform: [0.0, 0.4]}}",),
    "precision": ("precision: {{choice: [fp32, bf16]}}  # emulated where the device lacks it",),
    "batch_size": ("batch_size: {{choice: [16, 32, 64]}}",),
    "hidden_dim": ("hidden_dim: {{choice: [128, 256, 512]}}",),
    "layers": ("layers: {{choice: [1, 2, 3]}}",),
    "warmup": ("warmup: {{uniform: [0.0, 0.2]}}  # part of the steps",),
    "weight_decay": ("weight_decay: {{log: [1.0e-4, 3.0e-1]}}",),
}
OFFERED: Final = tuple(_RANGES)


@dataclass(frozen=True)
class Answers:
    """What a person said.

    Attributes:
        text: a file or folder to train on; None: the text that every Python carries.
        kind: one of KINDS.
        budget: the study file's `budget` section.
        knobs: some of OFFERED.
        device: one of DEVICES, which decides how large the model is.
    """

    text: Path | None
    kind: str
    budget: str
    knobs: tuple[str, ...]
    device: str


def budget_of(said: str) -> str:
    """Returns the `budget` section for a time as 10m, or a number of trials; raises."""
    said = said.strip().removesuffix("trials").strip()
    if said.isdecimal() and 0 < int(said) <= _ENDLESS:
        return f"{{trials: {said}}}"
    try:  # a bare number would be seconds: it is refused, as it looks like trials
        TypeAdapter(Duration).validate_python(said if said[-1:].isalpha() else f"{said}?")
    except ValidationError:
        remedy = f"write a time as 90s, 10m or 2h, or a number of trials up to {_ENDLESS}"
        message = f"{said!r} is neither a time nor a number of trials"
        raise InvalidInput.of("budget", message, remedy) from None
    return f"{{wall_time: {said}, trials: {_ENDLESS}}}"


def knobs_of(said: str) -> tuple[str, ...]:
    """Returns the names in a list with commas or spaces; raises InvalidInput for an unknown one."""
    names = tuple(dict.fromkeys(re.split(r"[,\s]+", said.strip(", \t"))))
    for name in names:
        if name not in OFFERED:
            remedy = near(name, OFFERED) or f"there are {', '.join(OFFERED)}"
            remedy += ", others are added by hand: docs/search-space.md"
            raise InvalidInput.of("knobs", f"{name!r} is not offered here", remedy)
    return names


def one_of(field: str, said: str, known: tuple[str, ...]) -> str:
    """Returns the word where it is a known one; raises InvalidInput."""
    word = said.strip().lower()
    if word not in known:
        raise InvalidInput.of(field, f"{said!r} is not known", f"there are {', '.join(known)}")
    return word


def study_text(answers: Answers, file: Path) -> str:
    """Returns the study file's text, which is to be written to `file`."""
    family = "lstm" if answers.kind == "lstm" else "gpt"
    text = answers.text
    called = (
        f"{text.stem if text else 'first'}-{answers.kind}" if file.stem == "study" else file.stem
    )
    name = re.sub(r"[^A-Za-z0-9]+", "-", called).strip("-")[:64] or answers.kind
    data = f"path: {_quoted(os.path.relpath(text, file.parent))}" if text else "builtin: stdlib"
    search = [line.format(rates=_RATES[family]) for k in answers.knobs for line in _RANGES[k]]
    shape = _without(_SHAPES[family, answers.device], answers.knobs)
    training = _without(_TRAINING[answers.device], answers.knobs)
    first = _TRAINING[answers.device]["evaluate_every"]
    lines = [
        "# A study for lmtune, made by `lmtune init`; change anything (docs/search-space.md).",
        "#",
        f"#     lmtune create --dry-run {file}  # says what is wrong, makes nothing",
        f"#     lmtune up --study {file}         # server, worker and dashboard for this study",
        f"#     lmtune create {file}            # on a server that runs",
        f"name: {name}",
        "",
        "# Bytes fit any text; other tokenizers are characters, words and bpe. The last tenth of",
        "# the text, or a split of its own, judges the trials.",
        f"data: {{{data}, tokenizer: bytes, validation_fraction: 0.1}}",
        "",
        f"# Sized for a {answers.device.upper()}. What `search` names stands only there.",
        f"model: {{{', '.join([f'kind: {answers.kind}', *shape])}}}",
        "",
        "# A trial in full: longer where learning curves still fall at their end.",
        "train:",
        *(f"  {line}" for line in training),
        "  schedule: cosine",
        *(["  warmup: 0.05"] if "warmup" not in answers.knobs else []),
        "",
        "# What is tried: log, uniform or choice. One line more tunes one knob more.",
        "search:",
        *(f"  {line}" for line in search),
        "",
        "objective: {metric: validation_loss, direction: minimize}",
        "sampler: {kind: tpe, seed: 7}  # the same seed draws the same first trials",
        "",
        "# Trials that are not among the best third at a rung end there.",
        f"scheduler: {{kind: asha, min_steps: {first}, reduction_factor: 3}}",
        f"budget: {answers.budget}  # whichever comes first",
    ]
    return "".join(f"{line}\n" for line in lines)


def _without(section: Mapping[str, int], searched: tuple[str, ...]) -> list[str]:
    return [f"{name}: {value}" for name, value in section.items() if name not in searched]


def _quoted(path: str) -> str:
    """Returns a path as YAML within braces: quoted, as it may hold anything."""
    return "'" + path.replace("'", "''") + "'"
