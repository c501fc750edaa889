"""Samplers: a server that was restarted goes on where the other stopped, and repeats nothing."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable

import pytest

from service.tuning import grid, samplers
from service.tuning.mirror import Mirror, Seen
from studies.parts import Sampler
from studies.trial import TrialState
from tests.service.world import World, spec

SPACE = {
    "learning_rate": {"log": [1e-4, 1e-1]},
    "regularizer": {"choice": ["none", "l1", "l2"]},
    "lambda": {"log": [1e-8, 1e-2], "when": {"regularizer": ["l1", "l2"]}},
    "dropout": {"uniform": [0.0, 0.5]},
    "layers": {"uniform": [1, 4]},
}
PLAIN = {"learning_rate": {"log": [1e-4, 1e-1]}, "dropout": {"uniform": [0.0, 0.5]}}
KINDS = ["random", "tpe", "qmc"]
STATES = [*TrialState]


def study(kind: str, search: dict | None = None, seed: int = 7, **parts):
    sampler = {"kind": kind, "seed": seed, "startup_trials": 4} | parts.pop("sampler", {})
    return spec(search=search or SPACE, sampler=sampler, **parts)


def outcome(number: int, params: dict, draw: random.Random) -> Seen:
    """How the trial went, in any of the states that the sampler may be shown."""
    state = draw.choice([*STATES, TrialState.COMPLETE, TrialState.COMPLETE])
    value = math.log10(params["learning_rate"]) ** 2 + draw.random()
    return Seen(number, state, params, 10, draw.choice([value, value, value, None]))


def lived(wanted, trials: int, seed: int) -> tuple[Mirror, list[Seen]]:
    """A mirror that lived through this many trials, and what it saw last of each."""
    draw, mirror, rows = random.Random(seed), Mirror(wanted), []
    for number in range(trials):
        params = mirror.ask(number).params
        rows.append(Seen(number, TrialState.RUNNING, params, 0, None))
        mirror.take(rows[-1:], 2 * number)
        changed = draw.randrange(len(rows))
        rows[changed] = outcome(changed, rows[changed].params, draw)
        mirror.take([rows[changed]], 2 * number + 1)
    return mirror, rows


def reborn(wanted, rows: Iterable[Seen]) -> Mirror:
    mirror = Mirror(wanted)
    mirror.take(rows, 99)
    return mirror


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("trials", [0, 1, 3, 6, 20])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_restarted_server_proposes_what_the_old_one_would_have(kind, trials, seed) -> None:
    wanted = study(kind, seed=seed)
    old, rows = lived(wanted, trials, seed)
    new = reborn(wanted, rows)
    assert old.ask(trials).params == new.ask(trials).params


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("search", [SPACE, PLAIN], ids=["conditional", "plain"])
def test_no_proposal_is_repeated_though_the_server_restarts_every_time(kind, search) -> None:
    wanted, rows = study(kind, search), []
    for number in range(24):
        params = reborn(wanted, rows).ask(number).params
        value = math.log10(params["learning_rate"]) ** 2
        rows.append(Seen(number, TrialState.COMPLETE, params, 30, value))
    assert len({str(row.params) for row in rows}) == len(rows)
    assert len({row.params["learning_rate"] for row in rows}) == len(rows)


@pytest.mark.parametrize("kind", ["random", "tpe", "qmc", "grid"])
def test_a_restarted_server_on_its_database_does_the_same(world: World, kind) -> None:
    points = {"points": 4} if kind == "grid" else {}
    search = {
        "learning_rate": {"log": [1e-4, 1e-1], **points},
        "regularizer": {"choice": ["none", "l1"]},
    }
    sampler = {"kind": kind, "seed": 3, "startup_trials": 3}
    proposed = {}
    for name in ("steady", "restarted"):
        world.open(name, search=search, sampler=sampler, budget={"trials": 7})
        worker = world.worker()
        for number in range(7):
            held = worker.claim()
            if number == 2:
                held.finish("diverged", 0)
            else:
                held.train(number * 0.1)
            if name == "restarted":
                world.forgetful()
        proposed[name] = [row.params for row in world.rows("trials")][-7:]
    assert proposed["restarted"] == proposed["steady"]
    assert len({str(params) for params in proposed["steady"]}) == 7


@pytest.mark.parametrize("kind", KINDS)
def test_the_study_seed_decides(kind) -> None:
    first = [Mirror(study(kind, seed=seed)).ask(0).params for seed in (1, 1, 2)]
    assert first[0] == first[1] != first[2]


def test_a_trials_sampler_seed_follows_seed_and_number() -> None:
    seeds = {samplers.sampler_seed(study, number) for study in range(30) for number in range(30)}
    assert len(seeds) == 900
    assert all(0 <= seed < 2**32 for seed in seeds)


@pytest.mark.parametrize("kind", KINDS)
def test_every_proposal_is_in_the_space_and_respects_conditions(kind) -> None:
    wanted = study(kind)
    _, rows = lived(wanted, 30, 5)
    for row in rows:
        assert ("lambda" in row.params) == (row.params["regularizer"] != "none")
        assert 1e-4 <= row.params["learning_rate"] <= 1e-1
        assert 0.0 <= row.params["dropout"] <= 0.5
        assert row.params["layers"] in (1, 2, 3, 4)
        assert list(row.params) == [n for n in wanted.space.names if n in row.params]
    assert len({row.params["regularizer"] for row in rows}) > 1


def test_qmc_spreads_evenly() -> None:
    """Of 16 points of a Sobol sequence one lies in each sixteenth of every axis."""
    wanted = study("qmc", PLAIN)
    mirror = Mirror(wanted)
    points = [mirror.ask(number).params for number in range(16)]
    rates = [(math.log10(p["learning_rate"]) + 4) / 3 for p in points]
    dropouts = [p["dropout"] / 0.5 for p in points]
    for axis in (rates, dropouts):
        assert sorted(int(x * 16) for x in axis) == list(range(16))


def test_tpe_learns() -> None:
    """Its later proposals gather around a parabola's minimum; at random 0.75 off on average."""
    wanted = study("tpe", PLAIN, sampler={"startup_trials": 10})
    mirror, rows = Mirror(wanted), []
    for number in range(40):
        params = mirror.ask(number).params
        value = (math.log10(params["learning_rate"]) + 2.5) ** 2
        rows.append(Seen(number, TrialState.COMPLETE, params, 30, value))
        mirror.take(rows[-1:], number)
    late = [abs(math.log10(row.params["learning_rate"]) + 2.5) for row in rows[20:]]
    assert sum(late) / len(late) < 0.6


def test_a_maximised_value_is_sought_at_the_other_end() -> None:
    near = {}
    for direction in ("minimize", "maximize"):
        wanted = study("tpe", PLAIN, objective={"direction": direction})
        mirror = Mirror(wanted)
        for number in range(30):
            params = mirror.ask(number).params
            seen = Seen(number, TrialState.COMPLETE, params, 30, params["dropout"])
            mirror.take([seen], number)
        near[direction] = mirror.ask(30).params["dropout"]
    assert near["minimize"] < 0.2 < 0.3 < near["maximize"]


@pytest.mark.parametrize("kind", [*KINDS, "grid"])
def test_what_a_person_fixed_stays_and_the_rest_is_sampled(kind) -> None:
    search = {
        "learning_rate": {"log": [1e-4, 1e-1]} | ({"points": 3} if kind == "grid" else {}),
        "dropout": {"uniform": [0.0, 0.5]} | ({"points": 3} if kind == "grid" else {}),
    }
    params = Mirror(study(kind, search)).ask(0, {"dropout": 0.125}).params
    assert params["dropout"] == 0.125
    assert 1e-4 <= params["learning_rate"] <= 1e-1


@pytest.mark.parametrize("kind", KINDS)
def test_foreign_numbers_are_passed_over(kind) -> None:
    """Numbers that somebody else's trials took change nothing but the number."""
    wanted = study(kind, PLAIN)
    mirror = Mirror(wanted)
    mirror.take([Seen(4, TrialState.COMPLETE, {"learning_rate": 0.01, "dropout": 0.1}, 30, 1.0)], 1)
    suggestion = mirror.ask(7)
    assert suggestion.trial.number == 7
    assert set(suggestion.params) == {"learning_rate", "dropout"}


# ------------------------------------------------------------------ grid

LADDER = {"learning_rate": {"log": [1e-3, 1.0], "points": 4}}


def walked(mirror: Mirror, trials: int = 99) -> list[dict]:
    found = []
    for number in range(trials):
        suggestion = mirror.ask(number)
        if suggestion is None:
            break
        found.append(suggestion.params)
        mirror.take([Seen(number, TrialState.FAILED, suggestion.params, 0, None)], number)
    return found


def test_learning_rates_go_from_large_to_small() -> None:
    found = walked(Mirror(study("grid", LADDER, sampler={"order": "descending"})))
    assert [p["learning_rate"] for p in found] == [1.0, 0.1, 0.01, 0.001]


def test_a_grid_goes_on_where_it_was() -> None:
    wanted = study("grid", LADDER, sampler={"order": "descending"})
    rows = [Seen(n, TrialState.RUNNING, {"learning_rate": 1.0 / 10**n}, 0, None) for n in range(2)]
    assert reborn(wanted, rows).ask(2).params == {"learning_rate": 0.01}


def test_a_grid_is_every_combination_once() -> None:
    search = {
        "learning_rate": {"log": [1e-3, 1e-1], "points": 3},
        "regularizer": {"choice": ["none", "l1", "l2"]},
        "lambda": {"log": [1e-8, 1e-2], "points": 2, "when": {"regularizer": ["l1", "l2"]}},
    }
    found = walked(Mirror(study("grid", search)))
    assert len(found) == 3 * (1 + 2 * 2)
    assert len({str(params) for params in found}) == len(found)
    assert all(("lambda" in p) == (p["regularizer"] != "none") for p in found)


@pytest.mark.parametrize("order", ["given", "ascending", "descending", "random"])
def test_orders_hold_the_same_points(order) -> None:
    search = {"learning_rate": {"log": [1e-3, 1.0], "points": 4}, "layers": {"uniform": [1, 3]}}
    wanted = study("grid", search, sampler={"order": order})
    points = grid.points(wanted.space, wanted.sampler)
    assert points == grid.points(wanted.space, wanted.sampler)
    given = grid.points(wanted.space, Sampler(kind="grid"))
    assert sorted(map(str, points)) == sorted(map(str, given))
    assert len(points) == 12


@pytest.mark.parametrize(
    ("entry", "values"),
    [
        ({"uniform": [0.0, 0.5], "step": 0.1}, [0.0, 0.1, 0.2, 0.30000000000000004, 0.4, 0.5]),
        ({"uniform": [0.0, 0.5], "points": 3}, [0.0, 0.25, 0.5]),
    ],
)
def test_axes_end_at_their_bounds(entry, values) -> None:
    wanted = study("grid", {"dropout": entry})
    assert grid.axis(wanted.space.params[0]) == pytest.approx(values)


def test_a_used_up_grid_ends_the_study_after_its_last_trial(world: World) -> None:
    world.open(search=LADDER, sampler={"kind": "grid", "order": "descending"})
    worker = world.worker()
    held = [worker.claim() for _ in range(4)]
    assert [h.grant.recipe.train.learning_rate for h in held] == [1.0, 0.1, 0.01, 0.001]
    assert worker.claim() is None
    assert world.study().state == "RUNNING"
    for each in held:
        assert each.train() == "COMPLETE"
    assert (world.study().state, world.study().reason) == ("ENDED", "exhausted")
