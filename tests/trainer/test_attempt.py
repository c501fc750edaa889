"""One attempt, with a real child process and the protocol's rules on the other side."""

import pytest

from .happenings import numerics, preempted, training, when


def test_a_trial_is_trained_reported_checkpointed_and_finished(server, run, recipe, expected):
    trial = server.add(recipe())
    end = run(trial)
    assert (end.outcome, end.final_step, end.reason) == ("ok", 12, None)
    assert numerics(trial) == expected(trial.recipe)
    assert trial.checkpoints[-1].step == 12
    assert trial.environment["device"] == "cpu"
    assert trial.environment["unigram_loss"] > 0
    after_start = [v for v in server.order if v != "heartbeat"]
    assert after_start[0] == "reports"
    assert after_start[-1] == "finish"


@pytest.mark.parametrize(("decision", "outcome"), [
    ("stop", "pruned"), ("cancel", "pruned"), ("pause", "paused"),
])  # fmt: skip
def test_a_reports_decision_ends_the_trial(server, run, recipe, decision, outcome):
    trial = server.add(recipe(steps=20_000, evaluate_every=20))
    trial.decide[20] = decision
    end = run(trial)
    assert end.outcome == outcome
    assert 20 <= end.final_step < 20_000
    if outcome == "paused":
        assert trial.checkpoints[-1].step == end.final_step


def test_a_heartbeats_decision_ends_the_trial(server, run, recipe):
    trial = server.add(recipe(steps=20_000, evaluate_every=20_000))
    when(training(trial), lambda: setattr(trial, "desired", "stop"))
    assert run(trial).outcome == "pruned"
    assert trial.reports == {}
    assert trial.steps == sorted(trial.steps)
    assert trial.steps[-1] > 0


def test_a_preempted_trial_resumes_to_the_same_bits(server, run, recipe, expected):
    trial = server.add(recipe(steps=1_200, evaluate_every=50, dropout=0.1))
    end = run(trial, before=preempted(trial))
    assert end.outcome == "preempted"
    assert 0 < end.final_step < 1_200
    assert trial.checkpoints[-1].step == end.final_step
    assert run(trial).outcome == "ok"
    assert trial.resumed == []
    assert numerics(trial) == expected(trial.recipe)


def test_a_trial_preempted_twice_between_two_reports_keeps_both_checkpoints(server, run, recipe):
    trial = server.add(recipe(steps=20_000, evaluate_every=20_000))
    first = run(trial, before=preempted(trial)).final_step
    trial.steps.clear()
    end = run(trial, before=lambda run: when(lambda: max(trial.steps, default=0) > first,
                                             lambda: run.ask("preempted")))  # fmt: skip
    assert 0 < first < end.final_step == trial.checkpoints[-1].step


def test_what_is_asked_before_the_child_was_told_is_heard(server, run, recipe):
    trial = server.add(recipe(steps=20_000))
    end = run(trial, before=lambda attempt: attempt.ask("preempted"))
    assert (end.outcome, end.final_step) == ("preempted", 0)


@pytest.mark.parametrize("fence", ["superseded", "cancelled", "finished", "not_found"])
def test_a_trial_that_is_no_longer_ours_is_dropped_and_the_child_stays_warm(
    server, run, recipe, child, fence
):
    trial = server.add(recipe(steps=100_000, evaluate_every=100_000))
    when(training(trial), lambda: setattr(trial, "fence", fence))
    process = child._process
    assert run(trial) is None
    assert run(server.add(recipe())).outcome == "ok"
    assert child._process is process


def test_a_diverged_trial_says_why(server, run, recipe):
    end = run(server.add(recipe(learning_rate=1e4, steps=500, evaluate_every=250)))
    assert end.outcome == "diverged"
    assert "nats per token" in end.reason


def test_a_recipe_too_large_for_the_machine_ends_as_oom(server, run, recipe):
    end = run(server.add(recipe(hidden_dim=200_000)))
    assert end.outcome == "oom"
    assert "GiB" in end.reason
    assert run(server.add(recipe())).outcome == "ok"


def test_a_text_too_short_for_the_recipe_is_an_error_that_names_the_knob(server, run, recipe):
    trial = server.add(recipe(batch_size=1_000))
    end = run(trial)
    assert end.outcome == "error"
    assert "train.batch_size" in end.reason
    assert "InvalidInput" in trial.log


def test_a_lost_blob_is_uploaded_again(server, run, recipe):
    trial = server.add(recipe(evaluate_every=12))
    server.lose_blobs = 1
    assert run(trial).outcome == "ok"
    assert [c.step for c in trial.checkpoints] == [12]


def test_a_checkpoint_the_server_cannot_keep_does_not_end_the_trial(server, run, recipe):
    trial = server.add(recipe())
    server.refusals["checkpoints"] = (413, "too_large")
    assert run(trial).outcome == "ok"
    assert [c.step for c in trial.checkpoints] == [12]


def test_with_early_stopping_the_best_checkpoint_is_the_one_kept(server, run, recipe):
    knobs = {"learning_rate": 0.3, "schedule": "constant", "patience": 3}
    trial = server.add(recipe(steps=2_000, evaluate_every=10, **knobs))
    end = run(trial)
    best = min(trial.reports.values(), key=lambda item: item.metrics["validation_loss"])
    assert end.outcome == "ok"
    assert end.final_step == best.step == trial.checkpoints[-1].step
    assert max(trial.reports) == best.step + 30


def test_the_attempts_log_says_what_happened(server, run, recipe, caplog):
    caplog.set_level("INFO", logger="trainer")
    trial = server.add(recipe())
    run(trial)
    for said in ("training on", "in fp32, from step 0", "step 6: ", "validation_loss", "trained f"):
        assert said in trial.log
