"""Whole runs: their reports, their endings, and that they resume to the same bits."""

import math
import subprocess
import sys
import textwrap

import pytest
import torch

from studies.errors import InvalidInput
from trainer import checkpoint
from trainer.checkpoint import CheckpointUnusable
from trainer.loop import train

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
        *("gradient_norm", "tokens_per_second", "data_wait_seconds", "peak_memory_bytes"),
        *("skipped_steps",),
        "batch_parts",
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
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "muon"])
@pytest.mark.parametrize("kind", ["lstm", "gpt"])
def test_a_resumed_run_ends_with_the_same_bits(tiny, fit, kind, optimizer, at):
    knobs = {"regularizer": "decoupled", "lambda": 1e-3, "dropout": 0.2, "warmup": 0.3}
    assert_resumes(fit, tiny(kind=kind, optimizer=optimizer, **knobs), at)


def test_a_resumed_fp16_run_keeps_its_loss_scale(tiny, fit):
    assert_resumes(fit, tiny(precision="fp16", patience=9), 8)


@pytest.mark.parametrize("windows", ["shuffled", "streams"])
def test_a_resumed_run_reads_on_where_it_was(tiny, fit, windows):
    noise = {"token_dropout": 0.1, "span_masking": 0.2}
    assert_resumes(fit, tiny(windows=windows, accumulate=3, **noise), 8)


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


TRUNK = {"schedule": "wsd", "windows": "shuffled", "steps": 24, "cooldown": 0.5}


def test_a_cool_down_branches_from_a_longer_runs_trunk(tiny, fit):
    """Warm-up of 3 steps, flat until 12: the short run is the long one so far."""
    _, _, long = fit(tiny(**{**TRUNK, "warmup": 3 / 24}), name="long")
    short = tiny(**{**TRUNK, "steps": 16, "warmup": 3 / 16, "cooldown": 0.25})
    _, whole, whole_files = fit(short, name="whole")
    _, branch, files = fit(short, start=long.files[12], name="branch")
    assert branch.started_at == 12
    assert branch.numerics() == [r for r in whole.numerics() if r[0] > 12]
    ours, expected = tensors_of(files, 16), tensors_of(whole_files, 16)
    assert all(torch.equal(ours[name], expected[name]) for name in expected)


@pytest.mark.parametrize(("other", "at"), [
    ({"warmup": 4 / 16}, 12), ({"cooldown": 0.5}, 12), ({"learning_rate": 2e-2}, 12), ({}, 18),
], ids=str)  # fmt: skip
def test_a_branch_that_is_not_of_the_trunk_is_refused(tiny, fit, other, at):
    _, _, long = fit(tiny(**{**TRUNK, "warmup": 3 / 24}))
    short = {**TRUNK, "steps": 20, "warmup": 3 / 20, "cooldown": 0.1, **other}
    with pytest.raises(CheckpointUnusable, match="another recipe"):
        fit(tiny(**short), start=long.files[at], name="b")


def test_a_checkpoint_of_another_text_is_refused(tiny, fit, text):
    _, _, folder = fit(tiny())
    with pytest.raises(CheckpointUnusable, match="another text"):
        fit(tiny(), start=folder.files[6], name="b", text=text[::-1])


@pytest.mark.parametrize("harm", [
    lambda tensors, state: tensors.pop("model.output.bias"),
    lambda tensors, state: tensors.update({"optimizer.9.0.exp_avg": torch.zeros(1)}),
    lambda tensors, state: state["meter"].update(steps=math.inf),
])  # fmt: skip
def test_a_checkpoint_whose_content_does_not_fit_is_refused(tiny, fit, tmp_path, harm):
    _, _, folder = fit(tiny())
    tensors, state = checkpoint.load(folder.files[6], CPU)
    harm(tensors, state)
    cut = checkpoint.save(tmp_path / "cut", tensors, state)
    with pytest.raises(CheckpointUnusable, match="does not fit"):
        fit(tiny(), start=cut, name="b")


def test_training_needs_no_compiler():
    """To import torch's takes two fifths of a training process's start: docs/decisions/0022."""
    script = """
        import sys
        import trainer.orders
        from studies.corpus import builtin_text
        from studies.recipe import Recipe
        from trainer.loop import train

        recipe = Recipe.model_validate({"data": {"builtin": "stdlib"}})
        small = dict(steps=2, batch_size=2, sequence_length=16, hidden_dim=8, evaluate_every=1)
        for kind in ("lstm", "gpt"):
            train(recipe.with_knobs({**small, "kind": kind}), builtin_text("stdlib")[:5_000])
        print("torch._dynamo" in sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True
    )
    assert done.stdout == "False\n", done.stderr
