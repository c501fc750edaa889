"""Some knobs that a study may search in vain: whatever their value, its trials train alike.

They are said, not refused: nothing is lost but trials that could have tried something else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from studies.errors import FieldError
from studies.knobs import written
from studies.recipe import KNOBS
from studies.recipe.model import MASKED
from studies.spec import StudySpec, taken

_ADAM: Final = ("adam", "adamw", "muon")
_TRANSFORMERS: Final = tuple(k for k in KNOBS["kind"].choices or () if k not in ("lstm", "script"))
_POSITIVE, _SEVERAL = 0, 1  # any value above it
Need = tuple[str, tuple[Any, ...] | int]
# A knob, and the values of another with one of which it changes what a trial learns.
NEEDS: Final[Mapping[str, Need]] = {
    "regularizer": ("lambda", _POSITIVE),
    "momentum": ("optimizer", ("sgd", "muon")),
    "beta1": ("optimizer", _ADAM),
    "beta2": ("optimizer", _ADAM),
    "epsilon": ("optimizer", _ADAM),
    "weight_decay": ("optimizer", ("adamw", "muon")),
    "final_fraction": ("schedule", ("linear", "cosine", "wsd")),
    "cooldown": ("schedule", ("wsd",)),
    "ladder_every": ("schedule", ("ladder",)),
    "ladder_factor": ("schedule", ("ladder",)),
    "span_length": ("span_masking", _POSITIVE),
    "mask_probability": ("kind", MASKED),
    "heads": ("kind", _TRANSFORMERS),
    "attention_dropout": ("kind", _TRANSFORMERS),
    "positions": ("kind", ("gpt",)),
    "embedding_dropout": ("kind", ("lstm", "gpt", "gpt2")),
    "hidden_dropout": ("kind", ("lstm", "gpt", "gpt2", "bert")),
    "output_dropout": ("kind", ("lstm", "gpt")),
}
SHAPE: Final = ("embedding_dim", "hidden_dim", "layers", "heads", "tied_weights")  # a folder's own


def idle(spec: StudySpec) -> Iterator[FieldError]:
    """Yields a notice for each searched knob that changes nothing in any trial, as far as known."""
    if spec.model.kind == "script":
        return  # its knobs are its own
    for name in spec.search:
        for other, values in _needs(spec, name):
            had = taken(spec, other)
            if not any(_wakes(value, values) for value in had):
                yield FieldError(
                    f"search.{name}",
                    f"changes nothing while {other} is {_either(had)}",
                    f"remove it, or let {other} be {_either(values)}",
                )
                break


def _needs(spec: StudySpec, name: str) -> Iterator[Need]:
    """Yields what must all hold for a knob to matter."""
    if name in NEEDS:
        yield NEEDS[name]
    if name == "hidden_dropout" and set(taken(spec, "kind")) == {"lstm"}:
        yield "layers", _SEVERAL  # it stands between them
    if name in SHAPE:
        yield "folder", (None,)


def _wakes(value: Any, values: tuple[Any, ...] | int) -> bool:
    return value in values if isinstance(values, tuple) else value > values


def _either(values: Iterable[Any] | int) -> str:
    if isinstance(values, int):
        return f"above {values}"
    return " or ".join("unset" if value is None else written(value) for value in values)
