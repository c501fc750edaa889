"""The recipe: every knob of a training run once, with its unit, bounds, default and source.

A `Recipe` is what a worker trains. A study fixes some knobs (sections `data`, `model`, `train`)
and searches others (section `search`); knob names are unique across the sections, so a search
names a knob without its section. `KNOBS` is the table, derived from the fields of the sections.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from pydantic import Field, model_validator

from studies.errors import FieldError
from studies.knobs import Knob, SectionName, row
from studies.recipe.data import SHA256, DataRecipe
from studies.recipe.model import ModelRecipe
from studies.recipe.section import Section
from studies.recipe.train import TrainRecipe

__all__ = ["KNOBS", "SHA256", "DataRecipe", "ModelRecipe", "Recipe", "TrainRecipe", "trial_seed"]


class Recipe(Section):
    """One complete training run: what a worker is given and what `--recipe FILE` reads."""

    data: DataRecipe
    model: ModelRecipe = ModelRecipe()
    train: TrainRecipe = TrainRecipe()
    # Values of the names that a script's study searches beside our knobs.
    own: dict[str, bool | int | float | str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _own_names_are_a_scripts(self) -> Recipe:
        if self.own and self.model.kind != "script":
            name = next(iter(self.own))
            raise ValueError(FieldError(f"own.{name}", "there is no such knob", "remove it"))
        return self

    def with_knobs(self, values: dict[str, Any]) -> Recipe:
        """Returns a copy with these knobs moved, validated again.

        Args:
            values: knob name, as in `KNOBS` (`lambda`, not `lambda_`), or a script's own name, to
                value.

        Raises:
            pydantic.ValidationError: a value is out of bounds or the knobs do not fit together.
        """
        document = self.model_dump(by_alias=True)
        for name, value in values.items():
            document[KNOBS[name].section if name in KNOBS else "own"][name] = value
        return Recipe.model_validate(document)


_SECTIONS: Final[dict[SectionName, type[Section]]] = {
    "data": DataRecipe,
    "model": ModelRecipe,
    "train": TrainRecipe,
}
KNOBS: Final[dict[str, Knob]] = {
    (info.alias or field): row(section, field, info)
    for section, model in _SECTIONS.items()
    for field, info in model.model_fields.items()
}


def trial_seed(study_seed: int, number: int) -> int:
    """Returns the seed of a trial [0, 2**63), from the study's seed and the trial's number only."""
    digest = hashlib.sha256(f"lmtune trial {study_seed} {number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
