"""Calls of workers to a `World`, each held to what the model of what was acknowledged expects."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest

from studies import errors
from studies.trial import Outcome
from tests.service.faults import Crash, crash, everything
from tests.service.model import RUNGS, TERMINAL, Model, Point, promotes
from tests.service.world import Held, World

Do = Callable[[World], Any]
APART = ("lmtune_workers", "lmtune_blobs")  # a claim's number and an upload stand before the rest


@dataclass
class Claim:
    """A claim that was sent: the worker may not have heard of it yet."""

    worker: Any
    seq: int


class Calls:
    """What workers may call, on either server, in any order; each call checks its answer."""

    seen: ClassVar[Counter[str]] = Counter()  # what happened, that the storm was one

    def __init__(self, world: World) -> None:
        self.world = world
        self.model = Model(world)
        self.top: dict[int, int] = Counter()  # the newest claim that arrived, by worker
        self.answers: dict[tuple[int, int], Held | None] = {}  # of claims
        self.held: list[Held] = []
        self.may_move: set[int] = set()  # trials that the call may change the state of
        self.may_create = False

    def crashing(self, do: Do, server: World, crash_at: int) -> None:
        """Lets a server die in the middle of it: nothing of it remains."""
        before = everything(self.world, *APART)
        try:
            with crash(server, crash_at):
                do(server)
        except (Crash, errors.Unavailable):
            self.seen["crashed"] += 1
            assert everything(self.world, *APART) == before
            if crash_at % 2:
                server.forgetful()

    def claim_at(self, claim: Claim, server: World) -> None:
        key = claim.worker.id, claim.seq
        refused, rows = self.model.refused[claim.worker.id], self.model.rows
        rungs = self.model.promotable(refused)
        claimable = rows.claimable(self.model.t, refused) | rungs.keys()
        ready = claimable, rows.with_room(refused)
        answered = key in self.answers
        try:
            if not answered and claim.seq >= self.top[claim.worker.id]:
                self.may_create, self.may_move = True, set(ready[0])
            held = claim.worker.claim_as(claim.seq, world=server)
        except errors.StaleClaim:
            assert claim.seq < self.top[claim.worker.id]
            self.seen["stale claim"] += 1
            return
        except (Crash, errors.Unavailable):
            row = next(r for r in self.world.rows("workers") if r.id == claim.worker.id)
            assert row.claim_seq in (self.top[claim.worker.id], claim.seq)
            self.top[claim.worker.id] = row.claim_seq
            raise
        assert claim.seq >= self.top[claim.worker.id], "an older claim was answered"
        self.top[claim.worker.id] = claim.seq
        if answered:
            self._same_answer(self.answers[key], held)
            return
        self.answers[key] = held
        if held is None:
            assert not ready[0], "there was something to claim"
            assert not ready[1] or self._exhausted(ready[1]), "there was room for a trial"
        else:
            self._granted(held, ready, rungs)

    def _granted(
        self, held: Held, ready: tuple[set[int], set[int]], rungs: dict[int, tuple[int, float]]
    ) -> None:
        trial_id = held.grant.trial_id
        row = self.model.rows.trials.get(trial_id)
        self.seen["granted" if row is None else f"granted {row.state}"] += 1
        study = self.world.study(held.grant.study)
        assert trial_id in ready[0] if row else study.id in ready[1]
        if trial_id in rungs:
            best = min(rungs[key] for key in rungs if self.model.of(key) == study.id)
            assert rungs[trial_id] == best, "not the best of the highest rung"
            self.model.trial(held).promoted = -best[0]
        self.may_move = {trial_id}
        self.model.granted(held)
        self.held.append(held)

    def _same_answer(self, first: Held | None, again: Held | None) -> None:
        live = first is not None and self.model.holds(first)
        assert (again and again.key) == (first.key if live else None)

    def _exhausted(self, studies: set[int]) -> bool:
        rows = self.world.rows("studies")
        return all("exhausted" in (r.reason or "") for r in rows if r.id in studies)

    def write(self, held: Held, server: World, call: Callable[[Held], Any]) -> Any:
        """The answer; None: it was refused, as it is just when the attempt is over."""
        holds = self.model.holds(held)
        self.seen["fresh" if holds else "stale"] += 1
        try:
            answer = call(replace(held, world=server))
        except errors.Conflict:
            if holds:
                raise
            return None
        assert holds, "I3: taken from an old attempt"
        self.model.renewed(held)
        return answer

    def report_at(self, held: Held, points: list[Point], server: World) -> None:
        before = self.model.desired(held)
        try:
            answer = self.write(held, server, lambda h: h.report(*points))
        except errors.Conflict:
            assert self._conflicts(held, points)
            return
        if answer is None:
            return
        new = (held.grant.trial_id, held.grant.attempt, answer.accepted_through)
        if new not in self.model.reports:
            self._check_decision(held, before, answer)
        self.model.took(held, points, answer)
        self.model.trial(held).progressed(points[-1][0], self.model.t)

    def _conflicts(self, held: Held, points: list[Point]) -> bool:
        """True when one of these cannot be taken, were every decision continue."""
        stored, last = dict(self.model.stored(held)), self.model.trial(held).last
        for step, value in points:
            if step in stored:
                if repr(stored[step]) != repr(value):
                    return True
            elif not last < step <= held.grant.max_step:
                return True
            else:
                last = step
        return False

    def _check_decision(self, held: Held, before: Any, answer: Any) -> None:
        at_end = answer.accepted_through == held.grant.max_step
        if at_end or before.desired != "run":
            assert answer.decision == ("continue" if at_end else before.desired)
            return
        study, step = self.model.rows.studies[before.study_id], answer.accepted_through
        kind = study.spec["scheduler"]["kind"]
        self.seen[f"{kind} {answer.decision}"] += 1
        if not promotes(study):
            assert answer.decision in (("continue",) if kind == "none" else ("continue", "stop"))
        elif answer.decision == "continue" and step in RUNGS:
            trial = self.model.trial(held)
            trial.promoted = max(trial.promoted, step)
        elif answer.decision != "continue":
            assert (answer.decision, step in RUNGS) == ("pause", True)
            assert self.model.trial(held).promoted < step, "paused where it was promoted from"

    def heartbeat_at(self, held: Held, step: int, server: World) -> None:
        wanted = self.model.desired(held).desired.replace("run", "continue")
        answer = self.write(held, server, lambda h: h.heartbeat(step))
        if answer is not None:
            assert answer == wanted
            self.model.trial(held).progressed(step, self.model.t)

    def guess_at(self, held: Held, server: World) -> None:
        """The right attempt with another lease token is nobody's."""
        thief = replace(held, token="f" * 32, world=server)
        for call in (lambda: thief.report((30, 0.0)), lambda: thief.finish("ok", 30)):
            with pytest.raises(errors.Conflict):
                call()

    def checkpoint_at(self, held: Held, step: int, uploads: bool, server: World) -> None:
        grant, trial = held.grant, self.model.trial(held)
        text = f"{grant.trial_id} {grant.attempt} {step}"
        digest = hashlib.sha256(text.encode()).hexdigest()
        if uploads:
            self.model.files.add(digest)
            server.upload(digest)
        lives = digest in {row.sha256 for row in self.world.rows("blobs") if row.state == "live"}
        try:
            answer = self.write(held, server, lambda h: h.point(step, digest, step))
        except errors.Unreported:
            assert step not in trial.curve
        except errors.BlobMissing:
            assert not lives
        else:
            if answer is not None:
                assert lives
                assert step in trial.curve
                self.model.pointed(held, step, digest)

    def resume_at(self, held: Held, step: int | None, server: World) -> None:
        try:
            answer = self.write(held, server, lambda h: h.resume(step))
        except errors.Conflict:
            assert self.model.stored(held)
            return
        if answer is not None:
            self.seen["resumed below"] += 1
            self.model.resumed(held, step or 0)

    def finish_at(self, held: Held, outcome: Outcome, step: int, server: World) -> None:
        key, said = (held.grant.trial_id, held.grant.attempt), (outcome, step)
        row, curve = self.model.desired(held), self.model.trial(held).curve
        known = self.model.finishes.get(key)
        if known is not None:
            self._finish_again(held, said, known, server)
            return
        try:
            state = self.write(held, server, lambda h: h.finish(outcome, step))
        except errors.InvalidInput:
            unasked = {
                "lost": True,
                "paused": row.desired != "pause",
                "pruned": row.desired in ("run", "pause"),
            }
            assert unasked.get(outcome, False)
        except errors.Unreported:
            assert (outcome, step in curve) == ("ok", False)
        else:
            if state is not None:
                self.may_move = {held.grant.trial_id}
                self.model.finishes[key] = (said, state)
                if outcome == "incompatible":
                    self.model.refused[row.worker_id].add(row.study_id)
                self._check_end(held, outcome, step, state)

    def _finish_again(self, held: Held, said: Any, known: Any, server: World) -> None:
        self.seen["finished again"] += 1
        try:
            state = replace(held, world=server).finish(*said)
        except errors.Conflict:
            assert said != known[0]
        else:
            assert (said, state) == known, "I7"

    def _check_end(self, held: Held, outcome: Outcome, step: int, state: str) -> None:
        desired, trial = self.model.desired(held).desired, self.model.trial(held)
        self.seen[f"{outcome} {state}"] += 1
        if desired == "cancel":
            assert state == "CANCELLED"
        elif outcome == "ok":
            finite = abs(trial.curve[step]) < float("inf")
            assert state == ("COMPLETE" if finite else "FAILED")
        elif desired == "stop":
            assert state == "PRUNED" or (state == "FAILED" and outcome in ("diverged", "oom"))
        else:
            assert state not in ("CANCELLED", "PRUNED", "COMPLETE")

    # ---------------------------------------------------------------- what people call

    def steer_at(self, name: str, action: str, server: World) -> None:
        study = self.model.rows.named(name)
        room = self.model.rows.slots(study) < study.spec["budget"]["trials"]
        taken = (
            study.state
            in {
                "pause": ("RUNNING",),
                "resume": ("PAUSED",),
                "stop": ("RUNNING", "PAUSED"),
                "enqueue": ("RUNNING", "PAUSED") if room else (),
            }[action]
        )
        self.may_create = action == "enqueue"
        if action in ("resume", "stop"):
            self.may_move = self.model.rows.of(study, "WAITING", "PAUSED")
        try:
            getattr(server, action)(name)
        except errors.Conflict:
            assert not taken
        else:
            assert taken
            self.seen[action] += 1

    def cancel_at(self, trial_id: int, server: World) -> None:
        row = self.model.rows.trials[trial_id]
        study = self.model.rows.studies[row.study_id]
        self.may_move = {trial_id} if row.state in ("WAITING", "PAUSED") else set()
        try:
            server.cancel(row.number, study.name)
        except errors.Finished:
            assert row.state in TERMINAL
        else:
            assert row.state not in TERMINAL
