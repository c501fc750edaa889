"""Eight real trials under forty kills, of workers and of the server: every loss is the same.

More of them: `LMTUNE_KILLS=200 LMTUNE_SEED=7 make test-all ARGS="-k forty_kills"`.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest

from tests.acceptance import tiny
from tests.harness.lmtune import Server, Worker
from tests.harness.process import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.nightly]
KILLS = int(os.environ.get("LMTUNE_KILLS", "40"))
SEED = int(os.environ.get("LMTUNE_SEED", "0"))
TRIALS, WORKERS = 8 if KILLS >= 40 else 4, 2  # fewer kills disturb fewer trials
EVERY = 50  # steps
STEPS = 75 * KILLS  # assumption: enough for the kills to end before the trials do
LEASE = "2"  # [s]
PARTS = {
    "train": {"steps": STEPS, "batch_size": 4, "sequence_length": 16, "evaluate_every": EVERY},
    "budget": {"trials": TRIALS},
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What the study comes to when nothing is killed."""
    return tiny.undisturbed(tmp_path_factory.mktemp("undisturbed"), 900, WORKERS, **PARTS)


class Killer:
    """Ends processes that are at work, and starts them again."""

    def __init__(self, server: Server, workers: list[Worker]) -> None:
        self.server, self.workers = server, workers
        self.rng = random.Random(SEED)
        self.hits: Counter[str] = Counter()
        self._next: list[str] = []  # whom to kill: both often, in no order

    def strike(self) -> None:
        """Waits for a worker in the middle of a trial; then kills it, or its server."""
        victim = wait_for(self._busy_worker, 300, f"busy worker after {self.hits}")
        self._next = self._next or self.rng.sample(["server", "worker"] * 2, 4)
        if self._next.pop() == "server":
            self.server.kill()
            self._freeze()  # or all trials would end while it starts
            self.server.start()
            self._freeze(thaw=True)
            self.hits["server"] += 1
        else:
            for process in victim.tree():
                process.suspend()
            if self._trains(victim):  # it cannot end its trial between the look and the kill
                self.hits["worker"] += 1
            victim.kill_tree()
            victim.start()

    def _freeze(self, thaw: bool = False) -> None:
        for process in [process for worker in self.workers for process in worker.tree()]:
            process.resume() if thaw else process.suspend()

    def _busy_worker(self) -> Worker | None:
        order = self.rng.sample(self.workers, len(self.workers))
        return next((worker for worker in order if self._trains(worker)), None)

    def _trains(self, worker: Worker) -> bool:
        """True when its attempt has a checkpoint behind it, and far to go."""
        client = self.server.client
        held = {view.pid: view.trial for view in client.workers()}.get(worker.pid)
        if held is None:
            return False
        trial = client.studies.trial("tiny", held)
        done = trial.step - trial.attempts[-1].start_step
        return trial.state == "RUNNING" and done >= 2 * EVERY and trial.step < STEPS - 3 * EVERY


def test_eight_trials_under_forty_kills_end_with_the_same_losses_bit_for_bit(
    make_server, make_worker, tmp_path: Path, undisturbed: dict
) -> None:
    server = make_server(LMTUNE_LEASE_SECONDS=LEASE)
    tiny.create(server, tmp_path, **PARTS)
    killer = Killer(server, [make_worker(server) for _ in range(WORKERS)])
    while killer.hits.total() < KILLS:
        killer.strike()
    server.wait_for_end("tiny", 900)

    assert tiny.outcome(server) == undisturbed
    outcomes = [outcome for n in range(TRIALS) for outcome in tiny.attempts(server, n)]
    assert outcomes.count("lost") >= killer.hits["worker"] > 0
    assert outcomes.count("ok") == TRIALS
    assert killer.hits["server"] > 0
    tiny.assert_whole(server, trials=TRIALS)
