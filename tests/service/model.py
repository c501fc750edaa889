"""What the callers of a server know, and what its rows must therefore be: I1 to I10.

The model is told of every answer and of nothing else. It shares no rule with the server.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from service.store.studies import BY_PEOPLE
from studies.trial import TRANSITIONS, TrialState
from tests.service.world import LEASE, TIMES, Held, World

TERMINAL = {"COMPLETE", "PRUNED", "FAILED", "CANCELLED"}
COUNTED = {"error", "lost", "hung"}
ATTEMPTS = 4  # counted ends in a row without a newer checkpoint
STALL = TIMES.stall
RUNGS, HALF = (10, 20), 2  # of the world's promoting studies: steps, reduction factor
SHOWN = {"FAILED": "FAIL", "CANCELLED": "FAIL"}  # in Optuna
Point = tuple[int, float]


class Rows:
    """What is in the database at one moment."""

    def __init__(self, world: World) -> None:
        self.studies = {row.id: row for row in world.rows("studies")}
        self.trials = {row.id: row for row in world.rows("trials")}
        self.attempts: dict[int, list[Any]] = defaultdict(list)
        for row in world.rows("attempts"):
            self.attempts[row.trial_id].append(row)
        self.reports = world.rows("reports")
        self.live_blobs = {row.sha256 for row in world.rows("blobs") if row.state == "live"}

    def named(self, name: str) -> Any:
        return next(row for row in self.studies.values() if row.name == name)

    def of(self, study: Any, *states: str) -> set[int]:
        """The ids of a study's trials in these states."""
        mine = (row for row in self.trials.values() if row.study_id == study.id)
        return {row.id for row in mine if row.state in states}

    def slots(self, study: Any) -> int:
        return len(self.of(study, *(state for state in TrialState if state != "CANCELLED")))

    def claimable(self, t: float, refused: set[int]) -> set[int]:
        """The ids of trials that may be granted to who cannot run the studies `refused`."""
        running = {s.id for s in self.studies.values() if s.state == "RUNNING"} - refused
        return {
            row.id
            for row in self.trials.values()
            if row.study_id in running
            and (row.state == "WAITING" or (row.state == "RUNNING" and stealable(row, t)))
        }

    def with_room(self, refused: set[int]) -> set[int]:
        """The ids of studies that may create a trial."""
        return {
            study.id
            for study in self.studies.values()
            if study.state == "RUNNING"
            and study.id not in refused
            and study.reason != "exhausted"
            and self.slots(study) < study.spec["budget"]["trials"]
        }


def promotes(study: Any) -> bool:
    return study.spec["scheduler"].get("mode") == "promote"


def stealable(row: Any, t: float) -> bool:
    return row.lease_until_t < t and row.desired == "run" and row.failures < ATTEMPTS - 1


@dataclass
class Trial:
    """What is known of one trial."""

    attempt: int = 0  # the newest that was granted
    held: bool = False  # that attempt has not ended
    lease: float = 0.0  # nobody takes it before [lease time]
    progress: tuple[int, float] = (0, 0.0)  # step, when
    curve: dict[int, float] = field(default_factory=dict)  # visible
    pointers: dict[tuple[int, int], str] = field(default_factory=dict)  # (step, attempt), the good
    failures: int = 0  # counted ends in a row without a newer checkpoint
    promoted: int = 0  # the rung from which it went on last

    @property
    def last(self) -> int:
        return max(self.curve, default=0)

    def cut(self, step: int) -> None:
        """An attempt begins at this step: nothing above it counts."""
        self.curve = {at: value for at, value in self.curve.items() if at <= step}

    def progressed(self, step: int, t: float) -> None:
        if step > self.progress[0]:
            self.progress = (step, t)


class Model:
    """Everything that was acknowledged."""

    def __init__(self, world: World) -> None:
        self.t = 0.0
        self.trials: dict[int, Trial] = defaultdict(Trial)
        self.reports: dict[tuple[int, int, int], tuple[float, str]] = {}
        self.finishes: dict[tuple[int, int], tuple[Any, str]] = {}
        self.refused: dict[int, set[int]] = defaultdict(set)  # by worker: studies it cannot run
        self.files: set[str] = set()
        self.terminal: dict[int, Any] = {}
        self.rows = Rows(world)

    # ---------------------------------------------------------------- what is known of an attempt

    def holds(self, held: Held) -> bool:
        trial = self.trials[held.grant.trial_id]
        return trial.held and trial.attempt == held.grant.attempt

    def trial(self, held: Held) -> Trial:
        return self.trials[held.grant.trial_id]

    def of(self, trial_id: int) -> int:
        """The id of a trial's study."""
        return self.rows.trials[trial_id].study_id

    def desired(self, held: Held) -> Any:
        return self.rows.trials[held.grant.trial_id]

    def stored(self, held: Held) -> list[Point]:
        """The reports of this attempt that were acknowledged."""
        key = held.grant.trial_id, held.grant.attempt
        return [(step, v) for (*of, step), (v, _) in self.reports.items() if tuple(of) == key]

    def promotable(self, refused: set[int]) -> dict[int, tuple[int, float]]:
        """The trials that wait at a rung and belong to its better half: (-rung, value) by id."""
        found = {}
        for study in self.rows.studies.values():
            mine = [row for row in self.rows.trials.values() if row.study_id == study.id]
            if study.state != "RUNNING" or study.id in refused or not promotes(study):
                continue
            for rung in RUNGS:
                came = {r.id: c[rung] for r in mine if rung in (c := self.trials[r.id].curve)}
                for row in mine:
                    value = came.get(row.id, math.nan)
                    better = sum(math.isfinite(v) and v < value for v in came.values())
                    waits = row.state == "PAUSED" and row.paused_by == "scheduler"
                    fresh = math.isfinite(value) and self.trials[row.id].promoted < rung
                    if waits and fresh and better < len(came) // HALF:
                        found[row.id] = (-rung, value)
        return found

    # ---------------------------------------------------------------- what was answered

    def granted(self, held: Held) -> None:
        grant, trial = held.grant, self.trial(held)
        assert grant.attempt == trial.attempt + 1, "I1: attempts are numbered one by one"
        assert not trial.held or trial.lease < self.t, "I1: it was taken from who had a lease"
        best = max(trial.pointers, default=None)
        found = grant.resume and (grant.resume.step, grant.resume.sha256)
        assert found == (best and (best[0], trial.pointers[best])), "I8: not the newest checkpoint"
        assert best is None or trial.pointers[best] in self.files, "I8: nothing to resume from"
        start = best[0] if best else 0
        trial.attempt, trial.held, trial.lease = grant.attempt, True, self.t + LEASE
        trial.progress = (start, self.t)
        trial.cut(start)

    def pointed(self, held: Held, step: int, digest: str) -> None:
        """A checkpoint was committed; of all, it and the best other one are kept."""
        trial = self.trial(held)
        assert digest in self.rows.live_blobs or digest in self.files
        if step > max(trial.pointers, default=(0, 0))[0]:
            trial.failures = 0
        others = {at: sha for at, sha in trial.pointers.items() if at != (step, trial.attempt)}
        kept = {at: others[at] for at in sorted(others)[-1:]}
        trial.pointers = kept | {(step, trial.attempt): digest}
        trial.progressed(step, self.t)

    def resumed(self, held: Held, step: int) -> None:
        """The attempt began below the checkpoint that it was given."""
        trial = self.trial(held)
        trial.pointers = {at: sha for at, sha in trial.pointers.items() if at[0] <= step}
        trial.cut(step)
        trial.progress = (step, trial.progress[1])

    def renewed(self, held: Held) -> None:
        """A write of the holder was accepted."""
        row = self.desired(held)
        if row.desired == "run" or self.t - row.desired_t < LEASE:
            self.trial(held).lease = self.t + LEASE

    def took(self, held: Held, points: Iterable[Point], answer: Any) -> None:
        """Reports were answered; each is new, or as it was stored."""
        key, trial, news = (held.grant.trial_id, held.grant.attempt), self.trial(held), 0
        for step, value in points:
            last = step == answer.accepted_through
            decision = str(answer.decision) if last else "continue"
            known = self.reports.get((*key, step))
            if known is None:
                assert trial.last < step <= held.grant.max_step, "steps rise to the last"
                self.reports[*key, step] = (value, decision)
                trial.curve[step] = value
                news += 1
            else:
                assert (repr(known[0]), known[1]) == (repr(value), decision), "I7"
            if last:
                break
        else:
            raise AssertionError(f"accepted_through {answer.accepted_through} was not sent")
        assert answer.duplicate == (not news)

    def lifted(self, before: float) -> None:
        """The clock saw that nobody ticked: every lease that was live goes on from now."""
        for trial in self.trials.values():
            if trial.held and trial.lease >= before:
                trial.lease = max(trial.lease, self.t + LEASE)

    # ---------------------------------------------------------------- what must hold

    def look(self, world: World, may_move: set[int], may_create: bool = False) -> None:
        """Compares the rows with what is known, and with the rows before."""
        before, self.rows = self.rows, Rows(world)
        for key, row in self.rows.trials.items():
            was = before.trials.get(key)
            if was is None:
                assert may_create, "a trial came from nowhere"
            elif (was.state, was.attempt) != (row.state, row.attempt):
                end = (was.state, row.state, self.rows.studies[row.study_id].state)
                over = end == ("PAUSED", "PRUNED", "ENDED")  # it waited at a rung to the end
                assert over or key in may_move, f"{was.state} -> {row.state} without a cause"
            if was is not None and was.desired in ("stop", "cancel"):
                assert row.desired in ("cancel", was.desired), "stop and cancel never go back"
            self.check_trial(key, row, before)
        self.check_reports()
        self.check_studies()
        self.check_events(world)
        self.check_checkpoints(world)
        if [s.revision for s in before.studies.values()] != [
            s.revision for s in self.rows.studies.values()
        ]:
            assert world.differences() == [], "I6"

    def check_trial(self, key: int, row: Any, before: Rows) -> None:
        known = self.trials[key]
        known.held = row.state == "RUNNING"
        found = [(each.attempt, each.outcome) for each in self.rows.attempts[key]]
        assert [number for number, _ in found] == list(range(1, known.attempt + 1)), "I1"
        live = [number for number, outcome in found if outcome is None]
        assert live == ([row.attempt] if known.held else []), "I1"
        ended = {each.attempt for each in before.attempts[key] if each.outcome is not None}
        known.failures += sum(o in COUNTED for number, o in found if number not in ended)
        assert known.failures <= ATTEMPTS, "I9"
        if known.held:
            assert row.lease_until_t >= known.lease, "a promised lease was cut"
        if row.state in TERMINAL:
            assert self.terminal.setdefault(key, row) == row, "I4: nothing changes after the end"
            if row.state == "COMPLETE":
                assert row.value == known.curve[row.step]
                assert math.isfinite(row.value)

    def check_reports(self) -> None:
        found = Counter((row.trial_id, row.attempt, row.step) for row in self.rows.reports)
        assert found == dict.fromkeys(self.reports, 1), "I2"
        visible = defaultdict(dict)
        for row in self.rows.reports:
            value, decision = self.reports[row.trial_id, row.attempt, row.step]
            assert (repr(value_of(row)), row.decision) == (repr(value), decision), "I2, I7"
            if not row.superseded:
                assert row.step not in visible[row.trial_id], "a step is visible once"
                visible[row.trial_id][row.step] = value
        curves = {key: trial.curve for key, trial in self.trials.items() if trial.curve}
        assert repr(sorted_all(visible)) == repr(sorted_all(curves))

    def check_studies(self) -> None:
        for study in self.rows.studies.values():
            assert self.rows.slots(study) <= study.spec["budget"]["trials"], "I5"
            if study.state == "ENDED":
                assert not self.rows.of(study, "WAITING", "RUNNING", "PAUSED"), "I5"

    def check_events(self, world: World) -> None:
        kinds = defaultdict(list)
        for event in world.rows("events"):
            if event.trial is not None and event.kind not in BY_PEOPLE:
                kinds[event.study_id, event.trial].append(event.kind.upper())
        for key, row in self.rows.trials.items():
            mine = kinds[row.study_id, row.number]
            assert (mine[0], mine[-1]) == ("WAITING", row.state), "I10"
            assert mine.count("RUNNING") == self.trials[key].attempt, "I10"
            assert all(b in TRANSITIONS[TrialState(a)] for a, b in pairwise(mine)), "I10"
            assert len(TERMINAL & set(mine)) == (row.state in TERMINAL), "I4"

    def check_checkpoints(self, world: World) -> None:
        for row in world.rows("checkpoints"):
            assert row.sha256 in self.rows.live_blobs, "I8: a pointer to nothing"
            assert row.sha256 in self.files, "I8: a pointer to nothing"
            good = self.trials[row.trial_id].pointers.get((row.step, row.attempt))
            assert row.bad or good == row.sha256, "I8: nobody was told of this pointer"

    def check_quiet(self, world: World) -> None:
        """After quiet: nothing is stuck, the budgets are used, and plain Optuna reads it alike."""
        assert world.differences() == [], "I6"
        for study in world.rows("studies"):
            rows = world.rows("trials", study_id=study.id)
            assert study.state == "ENDED", "I5: stuck"
            assert {row.state for row in rows} <= TERMINAL, "I5: stuck"
            slots = [row for row in rows if row.state != "CANCELLED"]
            assert study.reason != "budget" or len(slots) == study.spec["budget"]["trials"], "I5"
        study = world.study("s0")
        theirs = {trial.number: trial for trial in world.optuna("s0").trials}
        for row in world.rows("trials", study_id=study.id):
            reports = world.rows("reports", trial_id=row.id, superseded=False)
            curve = {report.step: repr(value_of(report)) for report in reports}
            found = theirs.pop(row.number)
            assert found.state.name == SHOWN.get(row.state, row.state), "I6"
            assert {s: repr(float(v)) for s, v in found.intermediate_values.items()} == curve, "I6"
        assert theirs == {}, "I6"


def value_of(report: Any) -> float:
    return float(report.special.replace("Infinity", "inf")) if report.special else report.value


def sorted_all(curves: dict[int, dict[int, float]]) -> list[Any]:
    return sorted((key, sorted(curve.items())) for key, curve in curves.items())
