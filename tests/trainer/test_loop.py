"""Whole runs: their reports, their endings, and that they resume to the same bits."""

import math
import subprocess
import sys
import textwrap

import pytest
import torch

from studies.errors import InvalidInput
from studies.recipe import KNOBS
from trainer import checkpoint
from trainer.checkpoint import CheckpointUnusable
from trainer.loop import train

from .conftest import Recorder

CPU = torch.device("cpu")


def tensors_of(folder, step):
    return checkpoint.load(folder.files[step], CPU)[0]


def test_a_run_reports_every_evaluation_and_learns(tiny, fit):
    recipe = tiny(steps=100, evaluate_every=30, hidden_dim=32, learning_rate=3e-2)
    result, recorder, folder = fit(recipe)
    assert (result.outcome, result.final_step, result.reason) == ("ok", 100, None)
    assert [item.step for item in recorder.items] == list(folder.files) == [30, 60, 90, 100]
    assert recorder.losses[-1] < 0.9 * recorder.environment["unigram_loss"]
    last = recorder.items[-1]
    assert last.tokens == 100 * 4 * 16
    assert set(last.metrics) == {
        *("validation_loss", "bits_per_byte", "perplexity", "train_loss", "learning_rate"),
        *("gradient_norm", "tokens_per_second", "peak_memory_bytes", "skipped_steps"),
    }
    assert last.metrics["perplexity"] == pytest.approx(math.exp(recorder.losses[-1]))
    assert last.metrics["bits_per_byte"] == pytest.approx(recorder.losses[-1] / math.log(2))
    assert last.metrics["tokens_per_second"] > 0
    assert last.metrics["peak_memory_bytes"] > 2**20
    assert [i.wall_ms for i in recorder.items] == sorted(i.wall_ms for i in recorder.items)


def test_the_environment_says_where_and_on_what(tiny, fit):
    _, recorder, _ = fit(tiny(precision="bf16"))
    facts = recorder.environment
    assert facts["device"] == "cpu"
    assert facts["emulated"] is True
    assert (facts["train_tokens"], facts["validation_tokens"]) == (5_400, 600)
    assert len(facts["data_sha256"]) == 64
    assert 2 < facts["unigram_loss"] < 3.5


def test_same_seed_same_loss_other_seed_other_loss(tiny, fit):
    recipe = tiny(dropout=0.2)
    first, again = (fit(recipe)[1].numerics() for _ in range(2))
    assert first == again
    assert fit(tiny(dropout=0.2, seed=2))[1].numerics() != first


@pytest.mark.parametrize("at", [6, 8])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("kind", ["lstm", "gpt"])
def test_a_resumed_run_ends_with_the_same_bits(tiny, fit, kind, optimizer, at):
    knobs = {"regularizer": "decoupled", "lambda": 1e-3, "dropout": 0.2, "warmup": 0.3}
    assert_resumes(fit, tiny(kind=kind, optimizer=optimizer, **knobs), at)


def test_a_resumed_fp16_run_keeps_its_loss_scale(tiny, fit):
    assert_resumes(fit, tiny(precision="fp16", patience=9), 8)


def assert_resumes(fit, recipe, at):
    _, whole, whole_files = fit(recipe, name="whole")
    result, first, files = fit(recipe, at, "preempted", name="first")
    assert (result.outcome, result.final_step) == ("preempted", at)
    result, second, rest = fit(recipe, start=files.files[at], name="second")
    assert result.outcome == "ok"
    assert second.started_at == at
    assert first.numerics() + second.numerics() == whole.numerics()
    last, expected = tensors_of(rest, 12), tensors_of(whole_files, 12)
    assert last.keys() == expected.keys()
    assert all(torch.equal(last[name], expected[name]) for name in expected)


@pytest.mark.parametrize("outcome", ["paused", "preempted"])
def test_an_ending_that_goes_on_later_leaves_a_checkpoint(tiny, fit, outcome):
    result, recorder, folder = fit(tiny(), 3, outcome)
    assert (result.outcome, result.final_step) == (outcome, 3)
    assert list(folder.files) == [3]
    assert recorder.items == []


def test_an_ending_at_an_evaluation_does_not_write_its_checkpoint_again(tiny, fit):
    result, recorder, folder = fit(tiny(), 6, "paused")
    assert (result.outcome, result.final_step) == ("paused", 6)
    assert list(folder.files) == [6]  # Folder.keep refuses a second one
    assert len(recorder.items) == 1


def test_an_ending_before_the_first_step_keeps_nothing(tiny, fit):
    result, _, folder = fit(tiny(), 0, "preempted")
    assert (result.outcome, folder.files) == ("preempted", {})


def test_a_pruned_run_needs_no_checkpoint(tiny, fit):
    result, _, folder = fit(tiny(), 7, "pruned")
    assert (result.outcome, result.final_step) == ("pruned", 7)
    assert list(folder.files) == [6]


def test_early_stopping_ends_at_the_best_evaluation(tiny, fit):
    recipe = tiny(steps=400, evaluate_every=10, patience=2, learning_rate=0.3, schedule="constant")
    result, recorder, _ = fit(recipe)
    best = min(recorder.items, key=lambda item: item.metrics["validation_loss"])
    assert recorder.items[-1].step < 400
    assert (result.outcome, result.final_step) == ("ok", best.step)
    assert recorder.items[-1].step == best.step + 20


@pytest.mark.parametrize("knobs", [
    {"optimizer": "adamw"}, {"optimizer": "sgd"}, {"kind": "gpt"}, {"precision": "fp16"},
    {"gradient_clip": 0.0},
], ids=lambda k: "-".join(map(str, k.values())))  # fmt: skip
def test_a_learning_rate_of_1e4_diverges_at_once(tiny, fit, knobs):
    recipe = tiny(learning_rate=1e4, steps=2_000, evaluate_every=1_000, **knobs)
    result, recorder, folder = fit(recipe)
    assert result.outcome == "diverged"
    assert "nats per token" in result.reason or "overflow fp16" in result.reason
    assert recorder.items == []
    assert folder.files == {}


def test_a_model_larger_than_memory_ends_as_oom_before_it_is_built(tiny, fit):
    result, _, _ = fit(tiny(hidden_dim=200_000))
    assert result.outcome == "oom"
    assert "GiB are free" in result.reason
    assert fit(tiny())[0].outcome == "ok"


def test_an_allocation_that_fails_ends_as_oom_and_the_process_trains_on():
    script = """
        import resource
        import torch
        from studies.corpus import builtin_text
        from studies.recipe import Recipe
        from trainer.loop import train

        torch.set_num_threads(1)
        text = builtin_text("stdlib")
        recipe = Recipe.model_validate({"data": {"builtin": "stdlib"}})
        small = recipe.with_knobs(dict(steps=1, batch_size=1, sequence_length=64, hidden_dim=8))
        assert train(small, text).outcome == "ok"
        limit = 600 * 2**20 + int(open("/proc/self/statm").read().split()[0]) * 4096
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        result = train(recipe.with_knobs(dict(batch_size=7_000)), text)
        print(result.outcome, "|", result.reason)
        print(train(small, text).outcome)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True
    )
    first, second = done.stdout.splitlines()
    assert first.startswith("oom | "), done.stderr
    assert "memory" in first
    assert second == "ok"


def test_a_text_shorter_than_a_batch_is_an_error_of_the_recipe(tiny, text):
    with pytest.raises(InvalidInput, match="one batch needs"):
        train(tiny(batch_size=400), text)


@pytest.mark.parametrize("other", [{"steps": 13}, {"seed": 2}, {"hidden_dim": 16}])
def test_a_checkpoint_of_another_recipe_is_refused(tiny, fit, other):
    _, _, folder = fit(tiny())
    with pytest.raises(CheckpointUnusable, match="another recipe"):
        fit(tiny(**other), start=folder.files[6], name="b")


def test_a_checkpoint_of_another_text_is_refused(tiny, fit, text):
    _, _, folder = fit(tiny())
    with pytest.raises(CheckpointUnusable, match="another text"):
        fit(tiny(), start=folder.files[6], name="b", text=text[::-1])


def test_a_checkpoint_that_lacks_a_tensor_is_refused(tiny, fit, tmp_path):
    _, _, folder = fit(tiny())
    tensors, state = checkpoint.load(folder.files[6], CPU)
    del tensors["model.output.bias"]
    cut = checkpoint.save(tmp_path / "cut", tensors, state)
    with pytest.raises(CheckpointUnusable, match="does not fit"):
        fit(tiny(), start=cut, name="b")


MOVED = {
    "tokenizer": ("bytes", {}),
    "vocabulary_size": (5, {"tokenizer": "words"}),
    "validation_fraction": (0.2, {}),
    "kind": ("gpt", {}),
    "embedding_dim": (16, {}),
    "hidden_dim": (16, {}),
    "layers": (1, {}),
    "heads": (4, {"kind": "gpt"}),
    "positions": ("learned", {"kind": "gpt"}),
    "tied_weights": (True, {}),
    "dropout": (0.3, {}),
    "steps": (10, {}),
    "batch_size": (5, {}),
    "sequence_length": (8, {}),
    "optimizer": ("sgd", {}),
    "learning_rate": (2e-2, {}),
    "momentum": (0.5, {"optimizer": "sgd"}),
    "beta1": (0.5, {}),
    "beta2": (0.9, {}),
    "epsilon": (1e-2, {}),
    "weight_decay": (0.5, {}),
    "schedule": ("constant", {}),
    "warmup": (0.5, {}),
    "final_fraction": (0.5, {}),
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


def test_every_knob_but_the_texts_name_is_moved_below():
    assert set(MOVED) == set(KNOBS) - {"builtin", "path", "sha256"}


@pytest.mark.parametrize("knob", MOVED)
def test_every_knob_changes_what_is_reported(tiny, text, knob):
    value, beside = MOVED[knob]
    reports = []
    for moved in ({}, {knob: value}):
        recorder = Recorder()
        train(tiny(**beside, **moved), text, recorder)
        reports.append(recorder.numerics())
    assert reports[0] != reports[1]
