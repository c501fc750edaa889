"""Models that Hugging Face's transformers builds, from a recipe's shape or from a local folder.

Nothing is downloaded, no code of a folder runs, and weights are read from safetensors only.

Shapes: B sequences, T tokens, V vocabulary.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from studies.corpus import file_sha256
from studies.errors import InvalidInput, StartupError
from studies.recipe import ModelRecipe
from studies.recipe.model import FAMILIES, MASKED
from trainer.models.base import LanguageModel, State

logger = logging.getLogger(__name__)
_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
# Where a folder has such a file, its weights are not meant to be drawn: of any library's format.
_ANY_WEIGHTS: Final = (
    *(".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".onnx"),
    ".index.json",
)
_NO_SPECIAL: Final = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))


def _transformers() -> ModuleType:
    """Returns the package, imported when it is first needed: it takes seconds."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        import transformers
    except ImportError:
        raise StartupError(
            "model.kind: this worker has no transformers; pip install 'lmtune[huggingface]'"
        ) from None
    return transformers


class HuggingFace(LanguageModel):
    """A causal or masked model of transformers, with logits for the text's own vocabulary.

    A masked model has one id more, the last one, which hides a token (see trainer.objective),
    unless the tokenizer has one for it.
    """

    def __init__(
        self, recipe: ModelRecipe, vocabulary: int, sequence_length: int, mask: int | None = None
    ) -> None:
        super().__init__()
        more = recipe.kind in MASKED and mask is None
        library, needed = _transformers(), vocabulary + more
        self._vocabulary = vocabulary
        config = _folder_config(library, recipe) if recipe.folder else None
        if config is None:
            shape = _SHAPES[recipe.kind](recipe, sequence_length)
            config = library.AutoConfig.for_model(
                recipe.kind, vocab_size=needed, **_NO_SPECIAL, **shape
            )
            config.tie_word_embeddings = recipe.tied_weights
        else:
            _require_room(config, needed, sequence_length)
        config.update(_dropouts(recipe) | {"use_cache": False})
        self.inner = _build(library, recipe, config)
        if (
            recipe.kind == "bert"
        ):  # whose head has the bias twice, one unused where weights are untied
            head = self.inner.cls.predictions
            head.bias = head.decoder.bias
        self.spread_evenly(recipe.initial_range)

    @property
    def embedding(self) -> nn.Module:
        """The input embedding."""
        module: nn.Module = self.inner.get_input_embeddings()
        return module

    @property
    def output(self) -> nn.Module:
        """The output layer."""
        module: nn.Module = self.inner.get_output_embeddings()
        return module

    @property
    def checkpointing(self) -> bool:
        """Whether blocks are computed again in the backward pass."""
        return bool(self.inner.is_gradient_checkpointing)

    @checkpointing.setter
    def checkpointing(self, on: bool) -> None:
        if on:
            self.inner.activation_checkpointing_enable({"use_reentrant": False})

    def hidden_matrices(self) -> list[nn.Parameter]:
        """Returns the matrices between features; see LanguageModel."""
        outer = {id(self.output.weight)}
        outer |= {id(m.weight) for m in self.modules() if isinstance(m, nn.Embedding)}
        return [p for p in self.parameters() if p.ndim == 2 and id(p) not in outer]

    def matrix_layers(self) -> list[nn.Module]:
        """Returns its linear layers; GPT-2 has a kind of its own, with its matrix transposed."""
        kinds = (nn.Linear, _transformers().pytorch_utils.Conv1D)
        return [module for module in self.modules() if isinstance(module, kinds)]

    def forward(self, x_BT: Tensor, state: State) -> tuple[Tensor, State]:
        """Returns logits_BTV and the empty state; see LanguageModel."""
        logits_BTV = self.inner(input_ids=x_BT).logits
        return logits_BTV[..., : self._vocabulary], state


def _gpt2(recipe: ModelRecipe, sequence_length: int) -> dict[str, Any]:
    return {
        "n_embd": recipe.embedding_dim,
        "n_inner": recipe.hidden_dim,
        "n_layer": recipe.layers,
        "n_head": recipe.heads,
        "n_positions": sequence_length,
    }


def _common(recipe: ModelRecipe, sequence_length: int) -> dict[str, Any]:
    return {
        "hidden_size": recipe.embedding_dim,
        "intermediate_size": recipe.hidden_dim,
        "num_hidden_layers": recipe.layers,
        "num_attention_heads": recipe.heads,
        "max_position_embeddings": sequence_length,
    }


def _llama(recipe: ModelRecipe, sequence_length: int) -> dict[str, Any]:
    heads = {"num_key_value_heads": recipe.heads, "head_dim": recipe.embedding_dim // recipe.heads}
    return _common(recipe, sequence_length) | heads


_SHAPES: Final = {"gpt2": _gpt2, "llama": _llama, "qwen2": _llama, "qwen3": _llama, "bert": _common}


def _dropouts(recipe: ModelRecipe) -> dict[str, float]:
    """Returns the recipe's dropouts under the family's names; llama and qwen have one place."""
    embedding, hidden, attention = (
        recipe.dropout_of(place) for place in ("embedding", "hidden", "attention")
    )
    if recipe.kind == "gpt2":
        return {"embd_pdrop": embedding, "resid_pdrop": hidden, "attn_pdrop": attention}
    if recipe.kind == "bert":
        return {"hidden_dropout_prob": hidden, "attention_probs_dropout_prob": attention}
    return {"attention_dropout": attention}


def _build(library: ModuleType, recipe: ModelRecipe, config: Any) -> nn.Module:
    masked = recipe.kind in MASKED
    kind = library.AutoModelForMaskedLM if masked else library.AutoModelForCausalLM
    said = {"attn_implementation": "sdpa", "dtype": torch.float32}
    imagined = torch.get_default_device().type == "meta"
    if recipe.folder is None or imagined or not _has_weights(Path(recipe.folder)):
        if recipe.folder and not imagined:
            logger.warning("%s has no weights: they are drawn anew, by the seed", recipe.folder)
        model: nn.Module = kind.from_config(config, trust_remote_code=False, **said)
        return model
    safe = {"local_files_only": True, "trust_remote_code": False, "use_safetensors": True}
    try:
        loaded: nn.Module = kind.from_pretrained(recipe.folder, config=config, **safe, **said)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise _wrong(f"{recipe.folder}: {str(error).splitlines()[0]}", _SAVE) from error
    return loaded.train()


# ------------------------------------------------------------------------------- a folder

_SAVE: Final = "save it with model.save_pretrained(FOLDER)"


def _wrong(message: str, remedy: str) -> InvalidInput:
    return InvalidInput.of("model.folder", message, remedy)


def _folder_config(library: ModuleType, recipe: ModelRecipe) -> Any:
    """Returns the folder's configuration; raises InvalidInput unless it is safe and of the kind."""
    folder = Path(recipe.folder or "")
    if not folder.is_dir():
        raise _wrong(f"this worker has no folder {folder}", "copy it there, or correct the path")
    for name in (_CONFIG, _WEIGHTS) if _has_weights(folder) else (_CONFIG,):
        if not (folder / name).is_file():
            raise _wrong(f"{folder} has no {name}", _SAVE)
    said, _ = library.PretrainedConfig.get_config_dict(folder, local_files_only=True)
    if "auto_map" in said:
        raise _wrong(f"{folder} brings code of its own", f"only {', '.join(FAMILIES)} are trained")
    if said.get("model_type") != recipe.kind:
        message = f"{folder} holds a {said.get('model_type')}, not a {recipe.kind}"
        raise _wrong(message, f"set model.kind to its family: {', '.join(FAMILIES)}")
    return library.AutoConfig.for_model(**{**said, **_NO_SPECIAL})


def _require_room(config: Any, needed: int, sequence_length: int) -> None:
    """Raises InvalidInput where the folder's model has too few ids or positions."""
    if config.vocab_size < needed:
        message = f"its vocabulary is {config.vocab_size}, the text's tokens need {needed}"
        raise _wrong(message, "take another data.tokenizer, or lower data.vocabulary_size")
    if config.max_position_embeddings < sequence_length:
        message = f"it knows {config.max_position_embeddings} positions"
        raise _wrong(message, "lower train.sequence_length")


def _has_weights(folder: Path) -> bool:
    """Returns whether there is a file of weights, which may be one that is refused."""
    return any(file.name.endswith(_ANY_WEIGHTS) for file in folder.iterdir())


def beginning(recipe: ModelRecipe) -> dict[str, str | None]:
    """Returns where a run's first weights come from, and the hashes of the folder's files."""
    facts = {"initial_weights": "drawn", "initial_weights_sha256": None}
    if recipe.folder is None:
        return facts
    folder = Path(recipe.folder)
    if _has_weights(folder):
        weights = file_sha256(folder / _WEIGHTS)
        facts = {"initial_weights": "loaded", "initial_weights_sha256": weights}
    return {**facts, "model_config_sha256": file_sha256(folder / _CONFIG)}
