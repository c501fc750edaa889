"""Looking at a study from a terminal: the live view, trials side by side, browser, completion."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from studies import wire
from studies.cli import shown
from studies.cli.live import drawn
from studies.cli.looks import Picture, looks
from studies.cli.output import spark
from studies.client import Client
from studies.fleet import WorkerCount
from studies.trial import StudyState, TrialState
from tests.harness.process import PATIENCE
from tests.studies.conftest import Run
from tests.studies.documents import small
from tests.studies.fake import FakeServer, study, trial

WORKER = WorkerCount(device="H100", state="busy", workers=1)


def curve(*values: float) -> list[wire.Point]:
    """A curve with these losses at steps 1, 2 ..., at 500 tokens a second."""
    return [
        wire.Point(
            step=step,
            attempt=1,
            metrics={"validation_loss": value, "tokens_per_second": 500.0},
            tokens=64 * step,
            wall_ms=2_000 * step,
        )
        for step, value in enumerate(values, 1)
    ]


def test_a_spark_line_is_lowest_where_the_value_is_least() -> None:
    assert spark([3.0, 2.0, 1.0], 10) == "█▅▁"
    assert spark([1.0, 1.0], 10) == "▁▁"
    assert spark([math.nan, math.inf, 2.0, 1.0], 10) == "█▁"
    assert spark([], 10) == ""
    long = spark([float(n) for n in range(1_000)], 8)
    assert (len(long), long[0], long[-1]) == (8, "▁", "█")


@pytest.mark.parametrize(("zone", "said"), [("Asia/Tokyo", "21:00"), ("UTC", "12:00")])
def test_a_study_is_listed_with_the_readers_time(
    monkeypatch: pytest.MonkeyPatch, zone: str, said: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        assert shown.study_row(study(small()))[-1] == f"2026-11-23 {said}"
    time.tzset()


def test_the_time_left_is_that_of_the_trials_to_come_but_never_beyond_the_limit() -> None:
    counts = {TrialState.COMPLETE: 1}
    view = study(small(budget__trials=5), counts=counts, running_seconds=20.0)
    assert shown.seconds_left(view) == 80.0
    limited = study(
        small(budget={"trials": 5, "wall_time": 50.0}), counts=counts, running_seconds=20
    )
    assert shown.seconds_left(limited) == 30.0
    assert shown.seconds_left(study(small())) is None
    assert shown.seconds_left(study(small(), state=StudyState.ENDED, counts=counts)) is None


def test_the_best_so_far_goes_by_the_order_of_the_ends_and_the_direction() -> None:
    view = study(small())
    values = [3.0, 2.0, 2.5, 1.0]
    trials = [trial(view, n, value=value) for n, value in enumerate(values)]
    trials.append(trial(view, 4, value=0.5, state=TrialState.PRUNED))
    assert shown.records(view, trials) == [3.0, 2.0, 2.0, 1.0]
    most = study(small(objective={"direction": "maximize"}))
    assert shown.records(most, trials) == [3.0, 3.0, 3.0, 3.0]


def seen(picture: Picture, waited: float = 0.0, width: int = 120) -> str:
    console = Console(width=width, force_terminal=True, color_system=None, soft_wrap=True)
    with console.capture() as captured:
        console.print(drawn(picture, waited))
    return captured.get()


def test_on_a_narrow_terminal_the_searched_values_are_cut_first() -> None:
    view = study(small(), counts={TrialState.RUNNING: 1})
    running = trial(view, 17, state=TrialState.RUNNING, step=2000, curve=curve(3.0, 2.25))
    running.params.update({f"knob_number_{n}": 0.123456 for n in range(6)})
    lines = seen(Picture(view, [running], [WORKER], [running]), width=90).splitlines()
    (head,) = (line for line in lines if "running on" in line)
    (row,) = (line for line in lines if line.startswith("17"))
    for word in ("trial", "running on", "step", "validation_loss", "curve"):
        assert word in head
    assert "2000" in row
    assert "2.25" in row
    assert row.rstrip().endswith("…")
    assert "knob_number_5" not in row


def test_the_live_view_shows_progress_best_workers_and_running_curves() -> None:
    view = study(
        small(budget__trials=6),
        counts={TrialState.COMPLETE: 2, TrialState.RUNNING: 1},
        best={"number": 1, "value": 2.0},
    )
    ended = [trial(view, 0, value=2.5), trial(view, 1, value=2.0)]
    running = trial(
        view, 2, state=TrialState.RUNNING, value=None, step=3, curve=curve(3.0, 2.0, 1.0)
    )
    text = seen(Picture(view, [*ended, running], [WORKER], [running]))
    first, *rest = text.splitlines()
    for said in ("small", "2/6", "best 2.0000 (trial 1)", "2:05", "about 4:10 left"):
        assert said in first
    assert "best so far █▁ 2.5000 to 2.0000" in text
    assert "1 worker, 1 busy; 1 GPU (1 H100), 500 tokens/s" in text
    row = next(line for line in rest if line.startswith("2 "))
    for said in ("w1", "3/4", "█▅▁", "learning_rate 0.01"):
        assert said in row
    assert sum("COMPLETE" in line for line in rest) == 2


def test_the_live_view_says_where_to_look_for_a_worker_that_does_not_come() -> None:
    assert "waiting for a worker" in seen(Picture(study(small())))
    narrow = seen(Picture(study(small())), waited=60.0, width=60)
    assert "lmtune-worker --server URL" in " ".join(narrow.split())
    assert max(map(len, narrow.splitlines())) <= 60


def test_what_others_wrote_cannot_steer_the_live_view() -> None:
    view = study(small(), state=StudyState.PAUSED, reason="\x1b[2J")
    running = trial(view, 0, state=TrialState.RUNNING, worker="\x07\x1b]0;x", curve=curve(1.0))
    evil = WORKER.model_copy(update={"device": "\x1b[31m"})
    text = seen(Picture(view, [running], [evil], [running]))
    assert not set("\x1b\x07") & set(text)


def test_a_look_reads_the_curves_of_running_trials_only(fake: FakeServer) -> None:
    view = fake.ended(small())
    fake.trials["small"].append(trial(view, 2, state=TrialState.RUNNING, curve=curve(2.0)))
    client = Client()
    picture = next(looks(client, "small", lambda: None))
    client.http.close()
    assert [one.number for one in picture.running] == [2]
    assert picture.tokens_per_second == 500.0
    asked = [path for _, path, _ in fake.said if "/trials/" in path]
    assert asked == ["/api/v1/studies/small/trials/2"]


def test_compare_marks_what_differs_and_puts_it_first(run: Run, fake: FakeServer) -> None:
    view = fake.ended(small(search__layers={"choice": [1, 2]}))
    fake.trials["small"] = [
        trial(view, 0, params={"learning_rate": 0.01, "layers": 1}, curve=curve(3.0, 2.5)),
        trial(view, 1, params={"learning_rate": 0.01, "layers": 2}, curve=[]),
        trial(view, 2, state=TrialState.FAILED, value=None, params={"learning_rate": 0.01}),
    ]
    lines = run("compare", "small", "0", "1", "2").out.splitlines()
    assert lines[0].split() == ["trial", "0", "trial", "1", "trial", "2"]
    rows = [line.split() for line in lines[1:]]
    assert rows[0] == ["state", "COMPLETE", "COMPLETE", "FAILED"]
    assert rows[-2:] == [["*", "layers", "1", "2"], ["learning_rate", "0.01", "0.01", "0.01"]]
    assert "█▁" in lines[7]
    document = json.loads(run("compare", "small", "0", "1", "--json").out)
    assert document["differing"] == ["layers"]
    assert [one["number"] for one in document["trials"]] == [0, 1]


def test_compare_wants_two_trials_that_are_there(run: Run, fake: FakeServer) -> None:
    fake.ended(small())
    assert run("compare", "small", "0", "0").err == (
        "error: TRIAL: one trial has nothing to differ from (name two or more)\n"
    )
    assert run("compare", "small", "0", "9").code == 3
    assert run("compare", "nobody", "0", "1").code == 3


def test_open_starts_the_browser_with_a_link_that_signs_in(
    run: Run, fake: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.ended(small())
    browser = tmp_path / "browser"
    browser.write_text(
        f"#!{sys.executable}\nimport sys\nopen({str(tmp_path / 'url')!r}, 'w').write(sys.argv[1])\n"
    )
    browser.chmod(0o755)
    monkeypatch.setattr("webbrowser._tryorder", None)  # it looks at BROWSER once in a process
    monkeypatch.setattr("webbrowser._browsers", {})
    monkeypatch.setenv("BROWSER", str(browser))
    pages: dict[tuple[str, ...], str] = {
        (): "http://x/login?code=1",
        ("small",): "http://x/login?code=1&next=%2Fstudies%2Fsmall",
        ("small", "1"): "http://x/login?code=1&next=%2Fstudies%2Fsmall%2Ftrials%2F1",
    }
    for arguments, url in pages.items():
        (tmp_path / "url").unlink(missing_ok=True)
        assert run("open", *arguments).out == f"{url}\n"
        assert (tmp_path / "url").read_text() == url
        (tmp_path / "url").unlink()
        assert run("open", *arguments, "--print").out == f"{url}\n"
        assert not (tmp_path / "url").exists()
    assert run("open", "nobody").code == 3
    assert run("open", "small", "9").code == 3


_LMTUNE = "import sys; sys.argv = ['lmtune']; from studies.cli import main; main()"


def completed(*words: str) -> list[str]:
    """What a bash would offer after these words; the last one is not finished."""
    asked = {"COMP_WORDS": " ".join(["lmtune", *words]), "COMP_CWORD": str(len(words))}
    ran = subprocess.run(  # a process: the shell's name for the command is that of its program
        [sys.executable, "-c", _LMTUNE],
        env={**os.environ, "_LMTUNE_COMPLETE": "complete_bash", **asked},
        capture_output=True,
        text=True,
        check=False,
        timeout=60 * PATIENCE,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout.split()


def test_a_shell_completes_commands_and_the_names_of_studies(fake: FakeServer) -> None:
    for name in ("small", "smaller", "other"):
        fake.ended(small(name=name))
    assert completed("comp") == ["compare"]
    assert completed("show", "sm") == ["small", "smaller"]
    assert completed("open", "o") == ["other"]


def test_completion_is_silent_where_no_server_answers(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    assert completed("show", "s") == []  # no token
    monkeypatch.setenv("LMTUNE_TOKEN", "x")
    monkeypatch.setenv("LMTUNE_URL", "http://127.0.0.1:9")
    assert completed("show", "s") == []
