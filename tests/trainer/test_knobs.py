"""The knob walk: no knob is without effect on what a trial learns."""

import gc
import weakref
from functools import partial

import pytest
import torch
from torch import nn

from studies.recipe import KNOBS
from trainer import checkpoint
from trainer.loop import train

from .conftest import Recorder

# Moved to this value, beside these, a knob changes the losses.
MOVED = {
    "tokenizer": ("bytes", {}),
    "vocabulary_size": (5, {"tokenizer": "words"}),
    "validation_fraction": (0.2, {}),
    "test_fraction": (0.2, {}),
    "validation_at": (5_000, {}),
    "test_at": (5_500, {}),
    "kind": ("gpt", {}),
    "embedding_dim": (16, {}),
    "hidden_dim": (16, {}),
    "layers": (1, {}),
    "heads": (4, {"kind": "gpt"}),
    "positions": ("learned", {"kind": "gpt"}),
    "tied_weights": (True, {}),
    "dropout": (0.3, {}),
    "embedding_dropout": (0.3, {}),
    "hidden_dropout": (0.3, {}),
    "attention_dropout": (0.3, {"kind": "gpt"}),
    "output_dropout": (0.3, {"kind": "gpt"}),
    "initial_range": (0.3, {}),
    "steps": (10, {}),
    "batch_size": (5, {}),
    "accumulate": (2, {"dropout": 0.1}),
    "windows": ("streams", {}),
    "token_dropout": (0.1, {}),
    "span_masking": (0.1, {}),
    "span_length": (2, {"span_masking": 0.2}),
    "mask_probability": (0.3, {"kind": "bert"}),
    "label_smoothing": (0.1, {}),
    "sequence_length": (8, {}),
    "optimizer": ("muon", {}),
    "learning_rate": (2e-2, {}),
    "momentum": (0.5, {"optimizer": "sgd"}),
    "beta1": (0.5, {}),
    "beta2": (0.9, {}),
    "epsilon": (1e-2, {}),
    "weight_decay": (0.5, {}),
    "schedule": ("constant", {}),
    "warmup": (0.5, {}),
    "final_fraction": (0.5, {}),
    "cooldown": (0.5, {"schedule": "wsd"}),
    "ladder_every": (0.5, {"schedule": "ladder"}),
    "ladder_factor": (0.1, {"schedule": "ladder"}),
    "regularizer": ("l1", {"lambda": 0.01}),
    "lambda": (0.1, {"regularizer": "l2"}),
    "regularized": ("all", {"regularizer": "l2", "lambda": 0.1}),
    "gradient_clip": (0.01, {"optimizer": "sgd"}),
    "precision": ("bf16", {}),
    "evaluate_every": (4, {}),
    "patience": (1, {"learning_rate": 1.0, "schedule": "constant", "evaluate_every": 1}),
    "seed": (7, {}),
}


# These change how a step is computed, not what: each has a test of its own below.
SILENT = ("gradient_checkpointing", "compile", "deterministic")
# And these name texts, weights and scripts: see test_data.py, test_huggingface.py, test_script.py.
FILES = (
    "builtin",
    "path",
    "sha256",
    "text_field",
    "separator",
    "tokenizer_file",
    "folder",
    "command",
)


def test_every_knob_is_moved_below():
    assert {*MOVED, *SILENT, *FILES} == set(KNOBS)


@pytest.mark.parametrize("knob", MOVED)
def test_every_knob_changes_the_losses(tiny, text, knob):
    """Not only what is said of a step: a learning rate may be reported and never applied."""
    value, beside = MOVED[knob]
    assert tiny(**beside, **{knob: value}) != tiny(**beside)
    reports = []
    for moved in ({}, {knob: value}):
        train(tiny(**beside, **moved), text, recorder := Recorder())
        losses = ("validation_loss", "train_loss")
        reports.append([(i.step, *map(i.metrics.get, losses)) for i in recorder.items])
    assert reports[0] != reports[1]


@pytest.mark.parametrize("kind", ["lstm", "gpt"])
def test_gradient_checkpointing_computes_layers_again_and_changes_no_bit(tiny, fit, kind):
    calls = []
    kinds = nn.LSTM if kind == "lstm" else nn.LayerNorm
    hook = nn.modules.module.register_module_forward_pre_hook(
        lambda m, *_: calls.append(m) if isinstance(m, kinds) and m.training else None
    )
    seen = []
    for on in (False, True):
        recipe = tiny(kind=kind, dropout=0.2, gradient_checkpointing=on)
        calls.clear()
        _, recorder, folder = fit(recipe, name=str(on))
        weights = checkpoint.load(folder.files[12], torch.device("cpu"))[0]
        seen.append((len(calls), recorder.numerics(), weights))
    hook.remove()
    (plain, reports, weights), (again, same, equal) = seen
    assert again > 1.5 * plain
    assert same == reports
    assert all(torch.equal(weights[n], equal[n]) for n in weights)


def test_deterministic_holds_while_training_and_not_after(tiny, text):
    class Asks(Recorder):
        def report(self, item):
            super().report(item)
            self.held = torch.are_deterministic_algorithms_enabled()

    for on in (True, False):
        train(tiny(deterministic=on), text, recorder := Asks())
        assert recorder.held is on
        assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own compiler
@pytest.mark.parametrize("knobs", [
    pytest.param({"kind": "lstm", "sequence_length": 2}, marks=pytest.mark.nightly),
    {"kind": "gpt", "precision": "bf16"},
], ids=str)  # fmt: skip
def test_a_compiled_model_learns_the_same(tiny, text, knobs):
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    losses = []
    for on in (False, True):
        train(tiny(compile=on, layers=1, **knobs), text, recorder := Recorder())
        losses.append(recorder.losses)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_a_warm_worker_compiles_every_shape_once_and_holds_few(tiny, text, monkeypatch):
    """Torch would stop after eight shapes, with no error; what makes code of graphs is left out."""
    graphs, compiled = [], []

    def backend(graph, _):
        graphs.append(weakref.ref(graph))
        return graph.forward

    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    for width in (*range(8, 18), 17, 17):
        knobs = {"kind": "gpt", "layers": 1, "hidden_dim": width, "steps": 1}
        train(tiny(compile=True, **knobs), text)
        gc.freeze()  # as the child does after each trial
        compiled.append(len(graphs))
    assert compiled == [*range(1, 11), 10, 10]
    assert sum(graph() is not None for graph in graphs) < 5
