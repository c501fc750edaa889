"""bench-trainer compares like with like: one model, one step, the text's tokens, a known peak."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest
import torch

from tests.benchmarks import trainer as bench
from tests.benchmarks._loops import ByHand, HandGPT, WithLoss, hand_model, hugging_face
from tests.benchmarks._shapes import SHAPES, Setting, recipe, text, tokens_N
from trainer.data import dataset
from trainer.memory import _Unfilled
from trainer.models import build_model
from trainer.precision import native_precisions
from trainer.run import Run

CPU = torch.device("cpu")
NATIVE = native_precisions(bench.device.choose_device())
TIED = replace(SHAPES["gpt-small"], heads=2, tied=True)


@pytest.mark.parametrize(
    "shape", [SHAPES["lstm-small"], SHAPES["gpt-small"], TIED], ids=["lstm", "gpt", "tied"]
)
def test_equal_weights_and_batches_give_all_loops_equal_losses_and_gradients(shape) -> None:
    run = Run(recipe(shape), text(shape.vocabulary)[:100_000])
    hand = ByHand(hand_model(shape))
    pairs = list(zip(hand.model.parameters(), run._model.parameters(), strict=True))
    assert [a.shape for a, _ in pairs] == [b.shape for _, b in pairs]
    with torch.no_grad():
        for theirs, ours in pairs:
            theirs.copy_(ours)
    found = []
    for step in range(5):
        x_BT, y_BT = run._batch(step)
        with_loss = WithLoss(hand.model)(input_ids=x_BT, labels=y_BT)["loss"]
        found.append(hand.step(x_BT, y_BT))
        run.step()
        assert with_loss.item() == found[-1][0].item()
    losses, norms = (torch.stack(values).mean().item() for values in zip(*found, strict=True))
    assert losses < found[0][0].item()  # it learned
    assert run.check() == pytest.approx((losses, norms), rel=1e-5)
    for theirs, ours in pairs:
        torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-5)


def test_the_largest_shape_is_gpt_2_with_a_text_of_as_many_ids() -> None:
    shape = SHAPES["gpt-124m"]
    with torch.device("meta"), _Unfilled():
        ours = build_model(recipe(shape).model, shape.vocabulary, shape.length)
        hand = HandGPT(shape)
    sizes = [sum(p.numel() for p in model.parameters()) for model in (ours, hand)]
    assert sizes == [124_337_664] * 2  # GPT-2's 124,439,808 less its biases
    assert bench.token_cost(shape, hand) == 6 * (sizes[0] - 768 * 1024) + 12 * 12 * 768 * 1024
    data = dataset(text(shape.vocabulary), recipe(shape).data)
    assert data.vocabulary == 50_257
    assert torch.equal(tokens_N(shape, CPU), data.train_N)
    assert "gpt-124m" not in bench.shapes(CPU)
    assert "gpt-124m" in bench.shapes(torch.device("cuda"))


@pytest.mark.parametrize(("name", "precision", "known"), [
    ("NVIDIA H100 80GB HBM3", "fp32", 67e12),
    ("NVIDIA H200", "bf16", 989.5e12),
    ("NVIDIA A100-SXM4-40GB", "tf32", 156e12),
    ("NVIDIA L4", "fp16", 121e12),
    ("Tesla T4", "fp16", 65e12),
    ("Tesla T4", "bf16", None),
    ("NVIDIA L40S", "bf16", None),  # another chip
    ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "bf16", None),  # a seventh of it
    ("NVIDIA H200 NVL", "bf16", None),  # slower
])  # fmt: skip
def test_a_peak_is_of_the_whole_device_and_the_format(name, precision, known) -> None:
    assert bench.peak(name, precision) == known


@pytest.mark.skipif("bf16" in NATIVE, reason="this device has bf16")
def test_a_format_that_the_device_has_not_is_refused(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "--precision", "bf16"])
    with pytest.raises(SystemExit):
        bench.main()
    assert "the cpu here has no such units" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.nightly
def test_a_round_is_of_all_three_loops(monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(bench.SHAPES, "gpt-small", replace(SHAPES["gpt-small"], steps=2))
    out = tmp_path / "figures.json"
    words = ["--quick", "--models", "gpt-small", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["bench", *words])
    bench.main()
    figures = json.loads(out.read_text())
    assert figures["precision"] == "fp32"
    assert {len(s) for s in figures["gpt-small"]["tokens_per_second"].values()} == {1}
    assert set(figures["gpt-small"]["ratios"]) == {"by hand", "Hugging Face"}


@pytest.mark.slow
@pytest.mark.nightly
def test_each_loop_computes_in_the_asked_format(monkeypatch, tmp_path) -> None:
    """What a GPU would do is not tried here: only what each loop is told."""
    import transformers

    class Told(Exception):
        pass

    told = {}

    def arguments(**said):
        told.update(said)
        raise Told

    monkeypatch.setattr(transformers, "TrainingArguments", arguments)
    for precision in ("fp32", "bf16", "fp16"):
        setting = Setting(precision, compile=True)
        with pytest.raises(Told):
            hugging_face(SHAPES["gpt-small"], setting, tmp_path)
        assert (told["bf16"], told["fp16"]) == (precision == "bf16", precision == "fp16")
        assert told["torch_compile"] is True
        train = recipe(SHAPES["gpt-small"], setting).train
        assert (train.precision, train.compile) == (precision, True)
