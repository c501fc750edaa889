"""One attempt, with a real child process and the protocol's rules on the other side."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from studies.corpus import text_sha256
from trainer.attempt import AttemptRun
from trainer.loop import train
from trainer.patience import GaveUp, Patience
from trainer.warm import Child

from .conftest import Recorder
from .fake_server import LEASE_MS, FakeServer

MOODY = ("tokens_per_second", "peak_memory_bytes")


@pytest.fixture(scope="module")
def child():
    """One warm child for all these tests: what one leaves behind the next would feel."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    child = Child()
    child.start()
    yield child
    child.close()
    os.environ.pop("OMP_NUM_THREADS")
    if before is not None:
        os.environ["OMP_NUM_THREADS"] = before


@pytest.fixture
def server():
    return FakeServer()


@pytest.fixture
def recipe(tiny, text):
    """Returns a function that makes a tiny recipe on the uploaded text."""
    return lambda **knobs: tiny(builtin=None, sha256=text_sha256(text), **knobs)


@pytest.fixture
def run(server, child, text, tmp_path):
    """Returns a function that grants a trial and trains it; gives its last finish, if any."""

    def run(trial, before=lambda attempt: None, fetch=None):
        folder = tmp_path / str(time.monotonic_ns())
        folder.mkdir()
        (folder / "text").write_text(text)
        child.start()
        calls = server.client().attempt(server.grant(trial), "f" * 32)
        patience = Patience(LEASE_MS / 1_000, threading.Event())
        attempt = AttemptRun(calls, child, patience, "c" * 64)
        before(attempt)
        attempt.train(fetch or (lambda _: folder / "text"), folder)
        return trial.finishes[-1] if trial.finishes else None

    return run


@pytest.fixture
def expected(text):
    """Returns a function that trains undisturbed, in this process."""

    def numerics(recipe):
        recorder = Recorder()
        train(recipe, text, recorder)
        return recorder.numerics()

    return numerics


def numerics(trial):
    return [
        (i.step, i.tokens, {k: v for k, v in i.metrics.items() if k not in MOODY})
        for _, i in sorted(trial.reports.items())
    ]


def when(ready, what):
    """Does `what` in a thread once `ready()` holds."""

    def watch():
        end = time.monotonic() + 60
        while not ready() and time.monotonic() < end:
            time.sleep(0.01)
        what()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def training(trial):
    """True once the trial is some steps on, as `when` asks it."""
    return lambda: any(trial.steps) or len(trial.reports) > 1


def preempted(trial):
    """Asks the worker to go in the middle of the trial."""
    return lambda attempt: when(training(trial), lambda: attempt.ask("preempted"))


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
    trial = server.add(recipe(steps=600, evaluate_every=20, dropout=0.1))
    end = run(trial, before=preempted(trial))
    assert end.outcome == "preempted"
    assert 0 < end.final_step < 600
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


@pytest.mark.parametrize("harm", ["corrupt", "missing"])
def test_a_checkpoint_that_cannot_be_used_starts_the_trial_anew(
    server, run, recipe, expected, harm
):
    trial = server.add(recipe(steps=600, evaluate_every=20))
    run(trial, before=preempted(trial))
    sha256 = trial.checkpoints[-1].sha256
    if harm == "missing":
        del server.blobs[sha256]
    else:
        server.blobs[sha256] = server.blobs[sha256][:-9] + b"corrupted"
    assert run(trial).outcome == "ok"
    assert trial.resumed == [None]
    assert numerics(trial) == expected(trial.recipe)


def test_while_the_server_is_away_the_child_trains_on_and_nothing_is_lost(
    server, run, recipe, expected
):
    trial = server.add(recipe(steps=600, evaluate_every=20))

    def cut_off():
        server.down = True
        time.sleep(1.5)
        server.down = False

    cut = when(training(trial), cut_off)
    assert run(trial).outcome == "ok"
    cut.join()
    assert numerics(trial) == expected(trial.recipe)
    assert trial.checkpoints[-1].step == 600
    assert len(trial.checkpoints) < 30  # those that were overtaken were passed over


def test_a_server_that_stays_away_is_given_up(server, run, recipe, child, monkeypatch):
    monkeypatch.setattr("trainer.patience.LEASES", 0.2)
    trial = server.add(recipe(steps=100_000, evaluate_every=100))
    when(training(trial), lambda: setattr(server, "down", True))
    with pytest.raises(GaveUp):
        run(trial)
    child.kill()


def test_a_child_that_dies_is_told_at_once_and_another_goes_on(server, run, recipe, child):
    trial = server.add(recipe(steps=100_000, evaluate_every=100))
    when(lambda: trial.checkpoints, lambda: os.kill(child._process.pid, signal.SIGKILL))
    end = run(trial)
    assert end.outcome == "error"
    assert "SIGKILL" in end.reason
    assert "memory" in end.reason
    trial.finishes.clear()
    trial.decide[trial.checkpoints[-1].step + 100] = "stop"
    assert run(trial).outcome == "pruned"
    assert trial.resumed == []  # the checkpoint was good


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


def test_a_refusal_nobody_foresaw_ends_the_trial_and_not_the_worker(server, run, recipe):
    trial = server.add(recipe(steps=20_000, evaluate_every=20))
    server.refusals["reports"] = (422, "invalid")
    assert run(trial).outcome == "error"
    assert run(server.add(recipe())).outcome == "ok"


def test_a_text_that_cannot_be_had_ends_the_trial_and_not_the_worker(server, run, recipe):
    def fetch(sha256: str) -> Path:
        raise OSError("no space left on device")

    end = run(server.add(recipe()), fetch=fetch)
    assert (end.outcome, end.reason) == ("error", "no space left on device")
    assert run(server.add(recipe())).outcome == "ok"


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
