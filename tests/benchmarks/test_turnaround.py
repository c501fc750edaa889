"""bench-turnaround's own machinery: the gaps are those of the worker's log."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.turnaround import gaps, lmtune, logged, summary

LOG = """
INFO trainer.attempt: trained from 2026-11-24T10:00:00.500000+00:00 to 2026-11-24T10:00:01+00:00
INFO trainer.attempt: attempt ended: ok at step 20 -> COMPLETE
INFO trainer.attempt: trained from 2026-11-24T10:00:01.250000+00:00 to 2026-11-24T10:00:02+00:00
INFO trainer.attempt: trained from 2026-11-24T10:00:02.125000+00:00 to 2026-11-24T10:00:03+00:00
"""


def test_a_gap_is_from_the_end_of_a_trial_to_the_next_ones_first_step() -> None:
    assert gaps(logged(LOG), 0) == [250.0, 125.0]
    assert gaps(logged(LOG), 1) == [125.0]


def test_a_log_without_times_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="tells no times"):
        logged("INFO trainer.attempt: attempt ended: ok at step 20 -> COMPLETE")


def test_the_summary_compares_medians() -> None:
    rows = summary({"lmtune": [10.0, 20.0, 90.0], "other": [400.0]})
    assert rows["other"]["of_lmtune"] == 20.0
    assert (rows["lmtune"]["median_ms"], rows["lmtune"]["max_ms"]) == (20.0, 90.0)


@pytest.mark.slow
@pytest.mark.nightly
def test_a_real_worker_tells_the_times_of_each_trial(tmp_path: Path) -> None:
    ran = lmtune(tmp_path, trials=2)
    moments = [moment for trial in ran for moment in trial]
    assert len(ran) == 2
    assert moments == sorted(moments)
