"""Models of transformers: from a shape, from a folder; masked ones; folders that are refused."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file

from studies.errors import InvalidInput
from studies.idle import SHAPE
from trainer.loop import train
from trainer.models import build_model
from trainer.objective import IGNORED, Masked
from trainer.precision import Emulated, build_precision

from .conftest import Recorder
from .test_knobs import MOVED
from .test_loop import assert_resumes

FAMILIES = ["gpt2", "llama", "qwen2", "qwen3", "bert"]
CPU = torch.device("cpu")


def model_of(tiny, **knobs):
    torch.manual_seed(0)
    return build_model(tiny(**knobs).model, 11, 16)


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_family_has_the_recipes_shape(tiny, kind):
    model = model_of(tiny, kind=kind, layers=3, embedding_dim=16, hidden_dim=24, heads=2)
    config = model.inner.config
    assert config.model_type == kind
    assert (config.hidden_size, config.num_hidden_layers) == (16, 3)
    assert config.num_attention_heads == 2
    assert 24 in {side for p in model.parameters() for side in p.shape}
    assert model(torch.randint(11, (2, 16)), [])[0].shape == (2, 16, 11)
    assert config.vocab_size == 11 + (kind == "bert")


@pytest.mark.parametrize("kind", FAMILIES)
def test_causal_models_see_the_past_and_masked_ones_both_sides(tiny, kind):
    model = model_of(tiny, kind=kind).eval()
    x_BT = torch.randint(11, (2, 16))
    changed_BT = x_BT.clone()
    changed_BT[:, 9:] = (changed_BT[:, 9:] + 1) % 11
    before_BTV, after_BTV = (model(x, [])[0][:, :9] for x in (x_BT, changed_BT))
    assert torch.allclose(before_BTV, after_BTV, atol=1e-5) == (kind != "bert")


@pytest.mark.parametrize("kind", FAMILIES)
def test_no_token_is_special(tiny, kind):
    """A padding token, which families have by default, would learn nothing."""
    model = model_of(tiny, kind=kind)
    model(torch.arange(11).repeat(2, 1), [])[0].square().sum().backward()
    assert model.embedding.weight.grad[:11].any(dim=1).all()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("kind", FAMILIES)
def test_it_learns_and_a_resumed_run_ends_with_the_same_bits(tiny, fit, kind):
    knobs = {"attention_dropout": 0.1, "optimizer": "muon", "gradient_checkpointing": True}
    wider = {"embedding_dim": 32, "hidden_dim": 32, "batch_size": 32, "learning_rate": 3e-3}
    recipe = tiny(kind=kind, steps=120, evaluate_every=40, **wider)
    _, recorder, _ = fit(recipe, name="learns")
    assert recorder.losses[-1] < recorder.losses[0]
    assert kind == "bert" or recorder.losses[-1] < recorder.environment["unigram_loss"]
    assert ("bits_per_byte" in recorder.items[0].metrics) == (kind != "bert")
    assert_resumes(fit, tiny(kind=kind, **knobs), 8)


@pytest.mark.parametrize(("kind", "linear"), [*zip(FAMILIES, (9, 15, 15, 15, 14), strict=True)])
def test_emulated_precision_reaches_every_matrix(tiny, kind, linear):
    model = model_of(tiny, kind=kind)
    precision = build_precision("bf16", model, CPU)
    assert isinstance(precision, Emulated)
    assert len(model.matrix_layers()) == linear
    weight = model.matrix_layers()[0].weight
    whole = weight.detach().clone()
    with precision.computing():
        assert torch.equal(weight, whole.bfloat16().float())
    assert torch.equal(weight, whole)


# ------------------------------------------------------------------------------- masked


def test_of_the_chosen_tokens_most_are_hidden_and_only_they_are_predicted():
    masked = Masked(11, 0.15, seed=1)
    x_BT = torch.randint(11, (64, 512))
    inputs_BT, targets_BT = masked.training(x_BT, x_BT, 3)
    chosen = targets_BT != IGNORED
    assert chosen.float().mean().item() == pytest.approx(0.15, abs=0.01)
    assert torch.equal(targets_BT[chosen], x_BT[chosen])
    assert torch.equal(inputs_BT[~chosen], x_BT[~chosen])
    hidden = (inputs_BT == 11)[chosen].float().mean().item()
    kept = (inputs_BT == x_BT)[chosen].float().mean().item()
    assert (hidden, kept) == pytest.approx((0.8, 0.1 + 0.1 / 11), abs=0.02)
    assert torch.equal(inputs_BT, Masked(11, 0.15, seed=1).training(x_BT, x_BT, 3)[0])
    assert not torch.equal(inputs_BT, masked.training(x_BT, x_BT, 4)[0])


def test_evaluations_hide_the_same_tokens_for_every_trial_and_no_padding():
    x_N = torch.randint(11, (256,))
    seen = []
    for seed, probability, shape in ((1, 0.3, (4, 64)), (2, 0.3, (4, 64)), (1, 0.1, (10, 26))):
        padding = shape[0] * shape[1] - 250
        x_SL = torch.nn.functional.pad(x_N[:250], (0, padding)).view(shape)
        y_SL = torch.nn.functional.pad(x_N[:250], (0, padding), value=IGNORED).view(shape)
        inputs_SL, targets_SL = Masked(11, probability, seed).evaluation(x_SL, y_SL)
        assert (targets_SL.flatten()[250:] == IGNORED).all()
        seen.append((inputs_SL.flatten()[:250], targets_SL.flatten()[:250]))
    for inputs_N, targets_N in seen[1:]:
        assert torch.equal(inputs_N, seen[0][0])
        assert torch.equal(targets_N, seen[0][1])
    assert (seen[0][1] != IGNORED).float().mean().item() == pytest.approx(0.15, abs=0.06)


def test_a_validation_split_of_few_tokens_has_something_to_predict(tiny, text):
    for length in range(2, 7):
        train(tiny(kind="bert", steps=1, validation_at=len(text) - length), text, r := Recorder())
        assert r.losses[0] > 0


def test_every_row_has_something_to_predict():
    x_BT = torch.randint(11, (256, 4))
    _, targets_BT = Masked(11, 0.001, seed=1).training(x_BT, x_BT, 0)
    assert (targets_BT != IGNORED).any(dim=1).all()


# ------------------------------------------------------------------------------- folders


@pytest.fixture
def saved(tmp_path):
    """A folder that transformers saved: a GPT-2 of 30 ids."""
    torch.manual_seed(5)
    config = transformers.GPT2Config(
        vocab_size=30, n_embd=8, n_layer=1, n_head=2, n_positions=16, bos_token_id=None,
        eos_token_id=None,
    )  # fmt: skip
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def test_a_folder_is_the_start(tiny, text, saved):
    recipe = tiny(kind="gpt2", folder=str(saved), learning_rate=1e-9)
    model = build_model(recipe.model, 11, 16)
    stored = load_file(saved / "model.safetensors")["transformer.wte.weight"]
    assert torch.equal(model.embedding.weight, stored)
    recorders = [Recorder(), Recorder()]
    for seed, recorder in enumerate(recorders):  # drawn weights would differ
        train(recipe.with_knobs({"seed": seed}), text, recorder)
    assert recorders[0].losses == pytest.approx(recorders[1].losses, rel=1e-4)
    assert recorders[0].environment["initial_weights"] == "loaded"
    assert len(recorders[0].environment["initial_weights_sha256"]) == 64


def test_other_weights_are_another_run(tiny, fit, saved):
    recipe = tiny(kind="gpt2", folder=str(saved))
    _, _, files = fit(recipe)
    config = transformers.GPT2Config.from_pretrained(saved)
    transformers.GPT2LMHeadModel(config).save_pretrained(saved)
    with pytest.raises(Exception, match="belongs to another start"):
        fit(recipe, start=files.files[6], name="b")


def edit(folder, **said):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | said))


def test_a_folder_of_a_config_alone_has_weights_drawn_by_the_seed(tiny, fit, saved, caplog):
    (saved / "model.safetensors").unlink()
    recipe = tiny(kind="gpt2", folder=str(saved), learning_rate=1e-9)
    model = build_model(recipe.model, 11, 16)
    assert model.embedding.weight.shape == (30, 8)  # the config's, not the recipe's
    assert model.training
    (_, first, files), (_, again, _) = (fit(recipe, name=name) for name in "ab")
    assert first.numerics() == again.numerics()
    _, other, _ = fit(recipe.with_knobs({"seed": 2}), name="c")
    assert abs(other.losses[0] - first.losses[0]) > 1e-4  # not the same weights
    assert first.environment["initial_weights"] == "drawn"
    assert first.environment["initial_weights_sha256"] is None
    assert len(first.environment["model_config_sha256"]) == 64
    assert f"{saved} has no weights: they are drawn anew, by the seed" in caplog.text
    edit(saved, layer_norm_epsilon=1e-3)
    with pytest.raises(Exception, match="belongs to another start"):
        fit(recipe, start=files.files[6], name="d")


def test_a_folders_shape_is_its_own_whatever_the_recipe_says(tiny, text, saved):
    plain = {"kind": "gpt2", "folder": str(saved), "steps": 2}
    found = []
    for moved in ({}, *({knob: MOVED[knob][0]} for knob in SHAPE)):
        recipe = tiny(**plain, **moved)
        train(recipe, text, recorder := Recorder())
        found.append((recipe, recorder.numerics()))
    assert all(recipe != found[0][0] for recipe, _ in found[1:])
    assert all(reports == found[0][1] for _, reports in found)


@pytest.mark.parametrize(("spoil", "knobs", "message"), [
    (lambda f: (f / "config.json").unlink(), {}, "has no config.json"),
    (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), {}, "has no model.safe"),
    (lambda f: (f / "model.safetensors").rename(f / "model-1.safetensors"), {}, "has no model.s"),
    (lambda f: edit(f, auto_map={"AutoModel": "evil.Model"}), {}, "brings code of its own"),
    (lambda f: (f / "model.safetensors").write_bytes(b"none"), {}, "saved"),
    (lambda f: None, {"kind": "llama"}, "holds a gpt2, not a llama"),
    (lambda f: None, {"tokenizer": "bytes"}, "vocabulary is 30, the text's tokens need 256"),
    (lambda f: None, {"sequence_length": 32}, "it knows 16 positions"),
], ids=lambda v: v if isinstance(v, str) else "")  # fmt: skip
def test_a_folder_that_cannot_be_used_is_one_clear_error(tiny, text, saved, spoil, knobs, message):
    spoil(saved)
    with pytest.raises(InvalidInput, match=message) as raised:
        train(tiny(**{"kind": "gpt2", "folder": str(saved), **knobs}), text)
    assert raised.value.errors[0].field == "model.folder"
    assert raised.value.errors[0].remedy


def test_a_missing_folder_and_a_kind_that_has_none(tiny, text, tmp_path):
    with pytest.raises(InvalidInput, match="this worker has no folder"):
        train(tiny(kind="gpt2", folder=str(tmp_path / "none")), text)
    with pytest.raises(ValueError, match="no lstm is loaded from a folder"):
        tiny(kind="lstm", folder=str(tmp_path))
    with pytest.raises(ValueError, match="would overwrite what the folder's model has learned"):
        tiny(kind="gpt2", folder=str(tmp_path), initial_range=0.1)
