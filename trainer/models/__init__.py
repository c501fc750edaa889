"""The language models; a new kind is one file here and one line in `build_model`."""

from __future__ import annotations

from studies.recipe import ModelRecipe
from trainer.models.base import LanguageModel, State
from trainer.models.gpt import GPT
from trainer.models.lstm import LSTM

__all__ = ["LanguageModel", "State", "build_model"]


def build_model(recipe: ModelRecipe, vocabulary: int, sequence_length: int) -> LanguageModel:
    """Returns a freshly initialised model on torch's default device.

    Args:
        recipe: kind and shape.
        vocabulary: how many token ids there are.
        sequence_length: the most tokens of one call, for models that must know [tokens].
    """
    if recipe.kind == "lstm":
        return LSTM(recipe, vocabulary)
    return GPT(recipe, vocabulary, sequence_length)
