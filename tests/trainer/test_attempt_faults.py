"""One attempt when the server is away, fails or refuses, and when disk or checkpoint are bad."""

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.harness.process import PATIENCE
from trainer.patience import GaveUp

from .happenings import numerics, training, when

HARMS = {
    "a bit flipped": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "missing": None,
}


def twice_checkpointed(trial):
    """Asks the worker to go once the trial has two checkpoints."""
    return lambda attempt: when(
        lambda: len(trial.checkpoints) > 1, lambda: attempt.ask("preempted")
    )


def harm_blob(server, sha256, harm):
    if harm is None:
        del server.blobs[sha256]
    else:
        server.blobs[sha256] = harm(server.blobs[sha256])


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_a_checkpoint_that_cannot_be_used_gives_way_to_the_one_before_it(
    server, run, recipe, expected, harm
):
    trial = server.add(recipe(steps=1_200, evaluate_every=20))
    run(trial, before=twice_checkpointed(trial))
    older, newest = trial.checkpoints[-2:]
    harm_blob(server, newest.sha256, harm)
    assert run(trial).outcome == "ok"
    assert trial.resumed == [older.step]
    assert numerics(trial) == expected(trial.recipe)


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_without_a_usable_checkpoint_the_trial_starts_anew(server, run, recipe, expected, harm):
    trial = server.add(recipe(steps=1_200, evaluate_every=20))
    run(trial, before=twice_checkpointed(trial))
    steps = [pointer.step for pointer in trial.checkpoints]
    for pointer in trial.checkpoints:
        harm_blob(server, pointer.sha256, harm)
    assert run(trial).outcome == "ok"
    assert trial.resumed == [steps[-2], None]
    assert numerics(trial) == expected(trial.recipe)


def test_a_checkpoint_of_another_trial_or_step_is_refused_though_its_hash_fits(
    server, run, recipe, expected
):
    trial, other = (server.add(recipe(steps=1_200, evaluate_every=20, seed=s)) for s in (1, 2))
    for each in (trial, other):
        run(each, before=twice_checkpointed(each))
    older, newest = trial.checkpoints[-2:]
    swapped = newest.model_copy(update={"sha256": other.checkpoints[-1].sha256})
    late = older.model_copy(update={"sha256": newest.sha256})
    trial.checkpoints[-2:] = late, swapped
    assert run(trial).outcome == "ok"
    assert trial.resumed == [older.step, None]
    assert numerics(trial) == expected(trial.recipe)


def cut_off_for(server, seconds):
    """Makes the server unreachable for some time."""

    def cut():
        server.down = True
        time.sleep(seconds)
        server.down = False

    return cut


def test_while_the_server_is_away_the_child_trains_on_and_nothing_is_lost(
    server, run, recipe, expected
):
    trial = server.add(recipe(steps=1_200, evaluate_every=20))
    cut = when(training(trial), cut_off_for(server, 1.5))
    assert run(trial).outcome == "ok"
    cut.join()
    assert numerics(trial) == expected(trial.recipe)
    assert trial.checkpoints[-1].step == 1_200
    assert len(trial.checkpoints) < 60  # those that were overtaken were passed over


def test_what_was_spooled_goes_up_in_order_and_in_batches(server, run, recipe, expected):
    trial = server.add(recipe(steps=1_000, evaluate_every=2))
    cut = when(training(trial), cut_off_for(server, 1.5))
    assert run(trial).outcome == "ok"
    cut.join()
    assert numerics(trial) == expected(trial.recipe)
    assert list(trial.reports) == sorted(trial.reports)
    assert max(trial.batches) > 3
    assert trial.checkpoints[-1].step == 1_000


@pytest.mark.parametrize(("decision", "outcome"), [("stop", "pruned"), ("pause", "paused")])
def test_a_decision_within_a_flush_stops_the_rest(server, run, recipe, decision, outcome):
    trial = server.add(recipe(steps=1_000, evaluate_every=2))

    def cut():
        trial.decide[max(trial.reports, default=0) + 10] = decision
        cut_off_for(server, 1.5)()

    when(lambda: trial.checkpoints, cut)
    end = run(trial)
    (decided,) = trial.decide
    assert end.outcome == outcome
    assert end.final_step > decided + 10, "it trained on meanwhile"
    assert max(trial.reports) == decided
    assert max(pointer.step for pointer in trial.checkpoints) <= decided


def test_after_a_theft_every_spooled_report_is_refused_and_the_device_is_free(
    server, run, recipe, child
):
    trial = server.add(recipe(steps=1_000_000, evaluate_every=5))

    def cut():
        server.down = True
        time.sleep(1.0)
        trial.fence = "superseded"
        trial.before = dict(trial.reports)
        server.down, trial.healed = False, time.monotonic()

    when(training(trial), cut)
    assert run(trial) is None
    assert time.monotonic() - trial.healed < 2 * PATIENCE  # a heartbeat of 0.1 s and a step
    assert trial.reports == trial.before
    assert run(server.add(recipe())).outcome == "ok"


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


def test_a_child_that_hangs_in_its_data_is_ended_and_the_next_trial_has_a_new_one(
    server, run, recipe, child, tmp_path, monkeypatch
):
    monkeypatch.setattr("trainer.warm.END_SECONDS", 0.5)
    os.mkfifo(tmp_path / "hung")  # nobody writes into it, as on a disk that does not answer
    trial = server.add(recipe())
    when(lambda: trial.steps, lambda: setattr(trial, "fence", "superseded"))
    assert run(trial, fetch=lambda _: tmp_path / "hung") is None
    hung = child._process
    assert hung.returncode == -signal.SIGKILL
    assert run(server.add(recipe())).outcome == "ok"
    assert child._process is not hung


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


def test_a_full_disk_costs_checkpoints_and_nothing_else(server, run, recipe, child, expected):
    trial = server.add(recipe(steps=1_200, evaluate_every=20))
    process = psutil.Process(child._process.pid)

    def fill():
        _, hard = process.rlimit(psutil.RLIMIT_FSIZE)
        process.rlimit(psutil.RLIMIT_FSIZE, (1_000, hard))  # no file may grow beyond this
        before = len(trial.checkpoints)
        end = time.monotonic() + 60 * PATIENCE
        reports = len(trial.reports)
        while len(trial.reports) < reports + 10 and time.monotonic() < end:
            time.sleep(0.01)
        trial.kept = len(trial.checkpoints) - before
        process.rlimit(psutil.RLIMIT_FSIZE, (hard, hard))

    filled = when(training(trial), fill)
    assert run(trial).outcome == "ok"
    filled.join()
    assert trial.kept < 5  # those that were written before
    assert "no checkpoint of step" in trial.log
    assert trial.checkpoints[-1].step == 1_200, "it recovers by itself"
    assert numerics(trial) == expected(trial.recipe)


def test_a_log_that_is_refused_holds_up_nothing(server, run, recipe):
    trial = server.add(recipe())
    server.refusals["log"] = (413, "too_large")
    assert run(trial).outcome == "ok"
    assert trial.log == ""


def test_a_server_that_fails_is_asked_again(server, run, recipe, expected):
    trial = server.add(recipe())
    for verb in ("heartbeat", "reports", "checkpoints", "finish"):
        server.refusals[verb] = (500, "internal")
    assert run(trial).outcome == "ok"
    assert numerics(trial) == expected(trial.recipe)
    assert server.refusals == {}
