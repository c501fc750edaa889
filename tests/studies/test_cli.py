"""The commands against a fake server: what they send, what they print, how they end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from studies import wire
from studies.corpus import text_sha256
from studies.trial import StudyState, TrialState
from tests.studies.conftest import Run
from tests.studies.documents import small
from tests.studies.fake import COMMAND, NOON, FakeServer, study, trial

TEXT = "To be, or not to be, that is the question.\n" * 40


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    """A study file beside its text."""
    (tmp_path / "corpus.txt").write_text(TEXT)
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(small(data={"path": "corpus.txt"})))
    return path


def test_create_uploads_the_text_and_names_it_by_hash(
    run: Run, fake: FakeServer, study_file: Path
) -> None:
    ran = run("create", str(study_file))
    assert (ran.code, ran.out) == (0, "created study small: 2 trials\n")
    assert fake.studies["small"].spec["data"] == {"sha256": text_sha256(TEXT)}
    assert text_sha256(TEXT) in fake.data


def test_data_takes_the_place_of_the_studys_text(
    run: Run, fake: FakeServer, tmp_path: Path
) -> None:
    other = tmp_path / "other.txt"
    other.write_text(TEXT * 2)
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(small(data={"builtin": "stdlib", "tokenizer": "characters"})))
    assert run("create", str(path), "--data", str(other)).code == 0
    sent = fake.studies["small"].spec["data"]
    assert sent == {"sha256": text_sha256(TEXT * 2), "tokenizer": "characters"}


def test_a_ready_study_is_created_by_its_name(run: Run, fake: FakeServer) -> None:
    assert run("create", "quickstart").code == 0
    assert fake.studies["quickstart"].spec["data"]["builtin"] == "stdlib"


BAD_TEXTS = [
    (None, "no such file"),
    (b"", "is empty"),
    (b"\xff\xfe\x00", "not UTF-8"),
    (b"only 15 letters", "one batch needs 18"),
]


@pytest.mark.parametrize(("content", "words"), BAD_TEXTS)
def test_a_bad_text_is_one_clear_line_and_nothing_is_made(
    run: Run, fake: FakeServer, study_file: Path, content: bytes | None, words: str
) -> None:
    text = study_file.with_name("corpus.txt")
    text.unlink()
    if content is not None:
        text.write_bytes(content)
    ran = run("create", str(study_file))
    assert ran.code == 2
    assert ran.err.startswith("error: data")
    assert words in ran.err
    assert ran.err.count("\n") == 1
    assert fake.said == []


def test_wrong_fields_are_a_line_each(run: Run, fake: FakeServer, study_file: Path) -> None:
    study_file.write_text(yaml.safe_dump(small(train__steps=0, search__x={"log": [1, 2]})))
    ran = run("create", str(study_file))
    assert ran.code == 2
    assert (
        ran.err
        == "error: train.steps: 0 does not fit (give an integer at least 1, at most 100000000)\n"
    )
    study_file.write_text(yaml.safe_dump(small(search__x={"log": [1, 2]}, search__y={})))
    assert len(run("create", str(study_file)).err.splitlines()) == 2
    assert fake.said == []


def test_a_duplicate_name_is_refused(run: Run, fake: FakeServer, study_file: Path) -> None:
    assert run("create", str(study_file)).code == 0
    ran = run("create", str(study_file))
    assert (ran.code, ran.err) == (1, "error: a study named small exists\n")


def test_an_unknown_study_has_its_own_exit_code(run: Run, fake: FakeServer) -> None:
    for command in ("show", "best", "watch", "export", "pause"):
        ran = run(command, "nobody")
        assert (ran.code, ran.out) == (3, ""), command
        assert ran.err == "error: no study is named nobody\n"
    assert run("show", "../x").code == 3
    assert run("show", "nobody", "x").code == 2
    assert run("frobnicate").code == 2


def test_nobody_at_the_address_has_its_own_exit_code(
    run: Run, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    ran = run("list")
    assert (ran.code, ran.out) == (4, "")
    assert "no token" in ran.err
    monkeypatch.setenv("LMTUNE_TOKEN", "x")
    for url in ("http://127.0.0.1:9", "nonsense"):
        ran = run("--url", url, "list")
        assert ran.code == 4
        assert ran.err.startswith(f"error: no answer from {url}: ")
    assert run("--url", "http://x:y", "list").code == 2


def test_a_wrong_token_is_said(run: Run, fake: FakeServer) -> None:
    ran = run("--token", "wrong", "list")
    assert (ran.code, ran.err) == (4, "error: send a token the server knows\n")


def test_a_foreign_server_is_said(
    run: Run, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake, "answer", lambda *_: {"hello": "world"})
    for command in (["show", "x"], ["workers"]):
        ran = run(*command)
        assert ran.code == 4
        assert "no lmtune server" in ran.err


def test_list_and_show_print_what_a_person_asks(run: Run, fake: FakeServer) -> None:
    fake.ended(small())
    assert run("list").out.splitlines()[1].split()[:4] == ["small", "ENDED", "(budget)", "2/2"]
    out = run("show", "small").out
    assert "best      trial 1, validation_loss 2.5000" in out
    assert out.splitlines()[-1].split() == ["1", "COMPLETE", "best", "2.5", "4/4", "0.01"]
    detail = run("show", "small", "1").out
    assert "trial 1: COMPLETE (best so far); validation_loss 2.5000; step 4/4" in detail
    assert "\x1b" not in out + detail


def test_json_is_for_scripts(run: Run, fake: FakeServer) -> None:
    view = fake.ended(small())
    best = json.loads(run("best", "small", "--json").out)
    assert (best["number"], best["value"], best["params"]) == (1, 2.5, {"learning_rate": 0.01})
    assert best["unigram_loss"] == 3.25
    assert wire.StudyView.model_validate_json(run("show", "small", "--json").out) == view
    assert [s["name"] for s in json.loads(run("list", "--json").out)] == ["small"]
    one = wire.TrialDetail.model_validate_json(run("show", "small", "0", "--json").out)
    assert one == fake.trials["small"][0]
    assert json.loads(run("workers", "--json").out) == []


def test_best_prints_the_baseline_beside_it(run: Run, fake: FakeServer) -> None:
    fake.ended(small())
    assert run("best", "small").out.splitlines() == [
        "best trial 1: validation_loss 2.5000 nats per token",
        "unigram baseline: 3.2500 nats per token",
        "  learning_rate  0.01",
    ]


def test_watch_ends_with_the_study_and_its_outcome(run: Run, fake: FakeServer) -> None:
    fake.ended(small())
    ran = run("watch", "small")
    assert ran.code == 0
    assert ran.out.splitlines()[:2] == [
        "trial 0: COMPLETE; validation_loss 3.5000; step 4/4; learning_rate 0.01",
        "trial 1: COMPLETE (best so far); validation_loss 2.5000; step 4/4; learning_rate 0.01",
    ]
    fake.studies["none"] = study(small(name="none"), state=StudyState.ENDED, reason="budget")
    ran = run("watch", "none")
    assert (ran.code, ran.err) == (1, "error: none ended with no complete trial\n")
    broken = study(small(name="bad"), state=StudyState.PAUSED, reason="failing", error="no text")
    fake.studies["bad"] = broken
    ran = run("watch", "bad")
    assert (ran.code, ran.err) == (1, "error: bad is paused, its trials fail: no text\n")


def test_watch_sees_the_trials_as_they_end(
    run: Run, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studies.cli.looks._PERIOD", 0.0)
    monkeypatch.setattr("studies.cli.looks._SHARE", 1e9)
    done = fake.ended(small(), trials=3)
    all_trials = fake.trials["small"]
    shown: list[int] = []

    def advance(name: str) -> None:
        shown.append(1)
        count = min(len(shown) // 6, 3)
        fake.trials["small"] = all_trials[:count]
        state = StudyState.ENDED if len(shown) > 24 else StudyState.RUNNING
        fake.studies["small"] = done.model_copy(update={"state": state, "revision": len(shown)})

    fake.on_read = advance
    ran = run("watch", "small")
    assert ran.code == 0
    assert [line.split(":")[0] for line in ran.out.splitlines()[:3]] == [
        "trial 0",
        "trial 1",
        "trial 2",
    ]


@pytest.mark.parametrize(
    ("command", "state"),
    [("pause", StudyState.PAUSED), ("resume", StudyState.RUNNING), ("stop", StudyState.ENDING)],
)
def test_steering_is_one_call(run: Run, fake: FakeServer, command: str, state: StudyState) -> None:
    fake.studies["small"] = study(small())
    ran = run(command, "small")
    assert (ran.code, ran.out) == (0, f"small: {state}\n")
    assert run("archive", "small").out == f"small: {state}, archived\n"
    assert run("archive", "small", "--undo").out == f"small: {state}\n"


def test_enqueue_reads_values_as_the_knobs_have_them(run: Run, fake: FakeServer) -> None:
    fake.studies["small"] = study(small())
    values = ["learning_rate=3e-3", "layers=2", "tied_weights=true", "optimizer=sgd"]
    ran = run("enqueue", "small", *values)
    assert ran.code == 0
    assert "WAITING" in ran.out
    sent = json.loads(fake.said[-1][2])["params"]
    assert sent == {"learning_rate": 0.003, "layers": 2, "tied_weights": True, "optimizer": "sgd"}
    ran = run("enqueue", "small", "learning_rat=1", "layers", "optimizer=adm", "layers=0")
    assert ran.code == 2
    assert [line.split(":")[1].strip() for line in ran.err.splitlines()] == [
        "learning_rat", "layers", "optimizer", "layers",
    ]  # fmt: skip
    assert "did you mean learning_rate?" in ran.err


def test_cancel_says_what_became_of_the_trial(run: Run, fake: FakeServer) -> None:
    view = fake.ended(small())
    fake.trials["small"].append(trial(view, 2, state=TrialState.CANCELLED))
    fake.trials["small"].append(trial(view, 3, state=TrialState.RUNNING))
    assert run("cancel", "small", "2").out == "trial 2: CANCELLED\n"
    assert run("cancel", "small", "3").out == "trial 3: ends as CANCELLED, soon\n"
    assert run("cancel", "small", "9").code == 3


def test_workers_login_and_catalog(run: Run, fake: FakeServer) -> None:
    fake.workers = [
        wire.WorkerView(
            id=1, name="w1", host="h", pid=7, device="cpu", state="busy", study="small", trial=0,
            utilisation=0.5, registered_at=NOON, seen_at=NOON,
        )
    ]  # fmt: skip
    assert run("workers").out.splitlines()[1].split() == [
        "w1",
        "cpu",
        "busy",
        "small",
        "0",
        "50",
        "%",
        "h",
        "7",
    ]
    assert run("workers").err == "1 worker, 1 busy\n"
    assert "a line" in run("workers", "--log", "w1").out
    assert run("workers", "--log", "w2").code == 3
    ran = run("worker-command")
    assert (ran.out, "ssh NODE" in ran.err, "a note" in ran.err) == (f"{COMMAND.command}\n", 1, 1)
    assert run("login").out == "http://x/login?code=1\n"
    assert "quickstart" in run("catalog").out
    assert yaml.safe_load(run("catalog", "quickstart").out)["name"] == "quickstart"
    ran = run("catalog", "quickstat")
    assert (ran.code, "did you mean quickstart?" in ran.err) == (3, True)


def test_data_add_prints_the_hash_and_list_shows_it(
    run: Run, fake: FakeServer, tmp_path: Path
) -> None:
    path = tmp_path / "a.txt"
    path.write_text(TEXT)
    assert run("data", "add", str(path)).out == text_sha256(TEXT) + "\n"
    assert text_sha256(TEXT) in run("data", "list").out
    assert run("data", "add", str(tmp_path / "none.txt")).code == 2


def test_what_others_wrote_cannot_steer_the_terminal(run: Run, fake: FakeServer) -> None:
    view = fake.ended(small())
    state = TrialState.FAILED
    fake.trials["small"][0] = trial(view, 0, state=state, reason="\x1b[2J\x07", worker="\x1b]0;x")
    for command in (["show", "small"], ["show", "small", "0"], ["watch", "small"]):
        assert not set("\x1b\x07") & set(run(*command).out)


def test_help_teaches(run: Run) -> None:
    ran = run("--help")
    assert ran.code == 0
    assert "lmtune up" in ran.out
    assert "Exit codes" in ran.out
    assert "lmtune export mine" in run("export", "--help").out
    assert run("--version").out.startswith("lmtune")
