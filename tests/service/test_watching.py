"""Views of watched studies: fed with what changed, they are what a fresh reading would be."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.dispatch import watching
from service.dispatch.watching import Watch
from service.figures import TrialData
from service.figures.kept import CURVE_POINTS, CURVES, Kept, Told
from studies.errors import NotFound
from studies.trial import StudyState, TrialState
from studies.wire import ReportItem

COMPLETE, RUNNING = TrialState.COMPLETE, TrialState.RUNNING


def shown(watch):
    """What figures are drawn from, as text: NaN is not equal to itself."""
    return [
        repr((t.number, t.state, t.params, t.value, t.step, t.curve, t.spent, t.started, t.ended))
        for t in watch.snapshot("study").data.trials
    ]


def same_as_fresh(world):
    assert shown(world.reading.watch) == shown(Watch(world.ctx))


def test_a_view_follows_a_trial_from_its_grant_to_its_end(world):
    world.open()
    same_as_fresh(world)
    held = world.worker().claim()
    same_as_fresh(world)
    held.report((10, 3.0))
    same_as_fresh(world)
    held.report((20, math.nan))
    same_as_fresh(world)
    held.report((30, 2.0))
    held.finish("ok", 30)
    same_as_fresh(world)
    (trial,) = world.reading.watch.snapshot("study").data.trials
    assert (trial.state, trial.value, trial.step) == (COMPLETE, 2.0, 30)
    assert [step for step, _ in trial.curve] == [10, 20, 30]


def test_a_view_forgets_the_points_that_an_attempt_trains_again(world):
    world.open()
    held = world.worker().claim()
    held.report((10, 3.0))
    held.checkpoint(10)
    held.report((20, 2.5))
    same_as_fresh(world)
    world.advance(100)  # the lease is over
    again = world.worker("other").claim()
    assert again.grant.resume.step == 10
    same_as_fresh(world)
    again.report((20, 2.4))
    same_as_fresh(world)
    (trial,) = world.reading.watch.snapshot("study").data.trials
    assert trial.curve == ((10, 3.0), (20, 2.4))


def test_a_view_hears_of_a_checkpoint_that_could_not_be_used(world):
    world.open()
    held = world.worker().claim()
    held.report((10, 3.0))
    held.checkpoint(10)
    held.report((20, 2.5))
    held.finish("preempted", 20)
    again = world.worker("other").claim()
    same_as_fresh(world)
    again.resume(None)
    again.report((10, 3.1))
    same_as_fresh(world)


def test_only_what_changed_is_read(small_world, monkeypatch):
    world = small_world
    world.open()
    worker = world.worker()
    for _ in range(3):
        worker.run()
    world.reading.watch.snapshot("study")
    read = []
    for kind in ("_taken", "_told"):
        heard = getattr(watching, kind)
        monkeypatch.setattr(watching, kind, lambda row, k=kind, h=heard: read.append(k) or h(row))
    world.reading.watch.snapshot("study")
    assert read == []
    held = worker.claim()
    world.reading.watch.snapshot("study")
    assert read == ["_taken"]
    held.report((10, 2.0))
    world.reading.watch.snapshot("study")
    assert read == ["_taken", "_told"]


def test_views_are_let_go_when_others_need_the_room(small_world, monkeypatch):
    monkeypatch.setattr(watching, "ROOM", 5)
    for name in ("one", "two"):
        small_world.open(name)
        small_world.worker().run()
        small_world.reading.watch.snapshot(name)
    watch = small_world.reading.watch
    watch.snapshot("one")
    watch.snapshot("two")
    assert len(watch._views) <= 2
    watch.snapshot("two")
    assert len(watch._views) == 1


def test_sparks_are_fed_with_what_ended_since(world):
    world.open()
    worker, sparks = world.worker(), world.reading.sparks
    assert sparks.of("study", "minimize") == []
    for value in (3.0, 4.0, 2.0, 2.5):
        worker.run(value)
        seen = sparks.of("study", "minimize")
    assert seen == [(1, 3.0), (3, 2.0), (4, 2.0)]
    assert world.restarted().reading.sparks.of("study", "minimize") == seen


def test_loads_are_the_last_report_of_each_attempt(world):
    world.open(budget={"trials": 8})
    held = world.worker().claim()

    def say(held, step, **metrics):
        body = {"step": step, "metrics": {"validation_loss": 1.0, **metrics}}
        held.send([ReportItem(**body, tokens=1, wall_ms=1)])

    say(held, 10, tokens_per_second=5.0, peak_memory_bytes=100)
    say(held, 20, tokens_per_second=7.0, peak_memory_bytes=200)
    held.finish("preempted")
    again = world.worker("other").claim()
    assert again.grant.attempt == 2
    say(again, 10, peak_memory_bytes=math.inf)
    world.worker("silent").claim()
    loads = sorted(world.reading.watch.loads("study"), key=lambda load: load.memory or 0)
    assert [(load.number, load.device) for load in loads] == [(0, "cpu"), (0, "cpu")]
    assert [(load.tokens_per_second, load.memory) for load in loads] == [(None, None), (7.0, 200)]


def test_outlays_are_the_time_of_all_attempts(world, monkeypatch):
    now = [1_000.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    world.open(budget={"trials": 4})
    outlays = world.reading.outlays
    assert outlays.of("study") == 0.0
    held = world.worker().claim()
    now[0] += 60
    assert outlays.of("study") == pytest.approx(60)  # live
    other = world.worker("other").claim()
    now[0] += 60
    held.train()
    other.finish("preempted")  # it waits, and has cost what it has cost
    now[0] += 60
    assert outlays.of("study") == pytest.approx(180)
    world.worker("third").claim()
    now[0] += 1
    assert outlays.of("study") == pytest.approx(181)
    assert sum(world.reading.cost("study").devices.values()) == pytest.approx(181)
    assert world.restarted().reading.outlays.of("study") == pytest.approx(181)


def test_studies_are_found_by_a_part_of_their_name_and_by_state(world):
    for name in ("lstm-one", "lstm-two", "gpt"):
        world.open(name)
    world.pause("gpt")

    def names(**wanted):
        return [view.name for view in world.reading.studies(False, None, 10, **wanted).items]

    assert names(search="LSTM") == ["lstm-two", "lstm-one"]
    assert names(search="%") == []
    assert names(state=StudyState.PAUSED) == ["gpt"]


def test_importances_are_taken_from_a_sample_and_again_once_enough_has_ended(
    small_world, monkeypatch
):
    monkeypatch.setattr(watching, "RANKED", 20)
    ranked = []
    taken = watching._importances
    monkeypatch.setattr(watching, "_importances", lambda *a: ranked.append(len(a[1])) or taken(*a))
    small_world.open(budget={"trials": 60})
    worker, watch = small_world.worker(), small_world.reading.watch
    assert watch.importances("study") == {}
    for number in range(30):
        worker.run(1.0 + number)
    assert watch.importances("study") == {"learning_rate": pytest.approx(1.0)}
    for _ in range(2):
        worker.run(2.0)
        watch.importances("study")
    assert ranked == [30, 32]


def test_importances_of_brushed_trials_are_theirs_alone(small_world, monkeypatch):
    ranked = []
    taken = watching._importances
    monkeypatch.setattr(watching, "_importances", lambda *a: ranked.append(len(a[1])) or taken(*a))
    search = {"learning_rate": {"log": [1e-4, 1e-1]}, "dropout": {"uniform": [0.0, 0.5]}}
    short = {"steps": 10, "evaluate_every": 10}
    small_world.open(search=search, train=short, budget={"trials": 61})
    worker, watch = small_world.worker(), small_world.reading.watch
    for _ in range(60):
        held = worker.claim()
        recipe = held.grant.recipe
        low = recipe.train.learning_rate < 10**-2.5
        held.train(recipe.model.dropout if low else 1.0 + recipe.train.learning_rate)
    low, high = (f"learning_rate:{ends}" for ends in (":0.003162", "0.003163:"))
    for _ in range(2):
        matters = [watch.importances("study", brushes) for brushes in ((), (low,), (high,))]
    first = [max(found, key=found.get) for found in matters]  # of the best tenth of all: low ones
    assert first == ["dropout", "dropout", "learning_rate"]
    assert ranked[0] == 60 == ranked[1] + ranked[2]
    assert len(ranked) == 3  # and are kept
    assert watch.importances("study", (low, high)) == {}  # no trial lies in both


def test_a_view_keeps_few_rankings(small_world):
    small_world.open()
    small_world.worker().run()
    watch = small_world.reading.watch
    watch.importances("study")
    for end in range(2 * watching.BRUSHED):
        watch.importances("study", (f"learning_rate:0:1.{end}",))
    (view,) = watch._views.values()
    assert len(view.rankings) == watching.BRUSHED


def test_what_is_not_there_is_not_watched(small_world):
    with pytest.raises(NotFound):
        small_world.reading.watch.snapshot("none")


def complete(number, value=1.0):
    return number, number + 1, TrialData(number, COMPLETE, value=value, step=20)


def test_a_large_study_keeps_few_curves_but_every_trial_and_each_record():
    kept = Kept("minimize")
    count, falling = 20 * CURVES, 4_321
    rows = [complete(n, 0.5 if n == falling else 1.0) for n in range(count)]
    wanted = kept.take(rows)
    assert CURVES // 2 <= len(wanted) <= CURVES + 2
    assert falling in wanted
    kept.draw(Told(1 + step, n, (step, 1.0), (step, 0.1)) for n in wanted for step in range(20))
    assert kept.weight == count + 20 * len(wanted)
    more = [complete(n) for n in range(count, 4 * count)]
    kept.take(more)
    assert len(kept.trials) == 4 * count
    assert sum(bool(trial.curve) for trial in kept.trials) <= CURVES + 2
    assert kept.trials[falling].curve


def test_a_long_curve_is_thinned_and_keeps_its_ends():
    kept = Kept("minimize")
    kept.take([(7, 1, TrialData(0, RUNNING))])
    kept.append(Told(n, 7, (n, 1.0 / n), (n, 0.1)) for n in range(1, 3 * CURVE_POINTS))
    (trial,) = kept.trials
    assert len(trial.curve) <= CURVE_POINTS
    assert len(trial.spent) == len(trial.curve)
    assert trial.curve[0][0] == 1
    assert trial.curve[-1][0] == trial.step == 3 * CURVE_POINTS - 1


@settings(max_examples=60)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(0, 40))
def test_who_asks_after_a_tick_is_told_what_was_touched_since(numbers, after):
    kept = Kept("minimize")
    for revision, number in enumerate(numbers, 1):
        kept.take([(number, revision, TrialData(number, RUNNING))])
    since = numbers[after:]
    assert {trial.number for trial in kept.since_tick(after)} == set(since)
    assert {trial.number for trial in kept.since((after, 0))} == set(since)
