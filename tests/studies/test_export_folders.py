"""`lmtune export` for TensorBoard and MLflow: folders of runs that say what the trials said."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from studies import wire
from studies.trial import TrialState
from tests.studies.conftest import Run
from tests.studies.documents import small
from tests.studies.fake import NOON, FakeServer, trial


def point(step: int, loss: float) -> wire.Point:
    return wire.Point(
        step=step, attempt=1, metrics={"validation_loss": loss}, tokens=9, wall_ms=1_000 * step
    )


@pytest.fixture
def study(fake: FakeServer) -> None:
    """Three trials: one complete, one failed with a NaN, one that waits."""
    view = fake.ended(small())
    fake.trials["small"] = [
        trial(view, 0, curve=[point(2, 3.0), point(4, 2.5)]),
        trial(
            view, 1, state=TrialState.FAILED, value=None, reason="diverged",
            curve=[point(2, math.nan)],
        ),
        trial(
            view, 2, state=TrialState.WAITING, value=None, curve=[], attempts=[], started_at=None,
            ended_at=None,
        ),
    ]  # fmt: skip


def events(folder: Path) -> list[Any]:
    """Every event in the files of a run, as tensorboardX's own protocol buffers read them."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.glob("events.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):  # length, its checksum, the event, its checksum
            size = int.from_bytes(data[at : at + 8], "little")
            found.append(Event.FromString(data[at + 12 : at + 12 + size]))
            at += 16 + size
    return found


def test_tensorboard_gets_curves_and_parameters(run: Run, study: None, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    ran = run("export", "small", "--format", "tensorboard", "-o", str(folder))
    assert (ran.code, ran.err) == (0, "")
    assert f"tensorboard --logdir {folder}" in ran.out
    assert sorted(p.name for p in folder.iterdir()) == ["trial-00000", "trial-00001"]
    told = events(folder / "trial-00000")
    scalars = [
        (v.tag, e.step, v.simple_value, e.wall_time)
        for e in told
        for v in e.summary.value
        if v.tag == "validation_loss"
    ]
    noon = NOON.timestamp()
    assert scalars == [("validation_loss", 2, 3.0, noon + 2), ("validation_loss", 4, 2.5, noon + 4)]
    tags = {v.tag for e in told for v in e.summary.value}
    assert {"_hparams_/experiment", "_hparams_/session_start_info", "final/validation_loss"} <= tags
    lost = [v.simple_value for e in events(folder / "trial-00001") for v in e.summary.value]
    assert len(lost) == 1
    assert math.isnan(lost[0])


def test_mlflow_gets_an_experiment_with_a_run_per_trial(
    run: Run, study: None, tmp_path: Path
) -> None:
    folder = tmp_path / "mlruns"
    assert run("export", "small", "--format", "mlflow", "-o", str(folder)).code == 0
    (experiment,) = folder.iterdir()
    about = yaml.safe_load((experiment / "meta.yaml").read_text())
    assert (about["name"], about["experiment_id"]) == ("small", experiment.name)
    assert about["artifact_location"] == experiment.as_uri()
    runs = {}
    for meta in experiment.glob("*/meta.yaml"):
        said = yaml.safe_load(meta.read_text())
        assert (said["run_id"], said["artifact_uri"]) == (
            meta.parent.name,
            (meta.parent / "artifacts").as_uri(),
        )
        runs[said["run_name"]] = (meta.parent, said["status"])
    assert {name: status for name, (_, status) in runs.items()} == {
        "trial-00000": 3,
        "trial-00001": 4,
        "trial-00002": 2,
    }
    first = runs["trial-00000"][0]
    begun = int(1_000 * NOON.timestamp())
    assert (first / "metrics" / "validation_loss").read_text().splitlines() == [
        f"{begun + 2_000} 3.0 2",
        f"{begun + 4_000} 2.5 4",
    ]
    assert (first / "params" / "learning_rate").read_text() == "0.01"
    assert (runs["trial-00001"][0] / "tags" / "lmtune.reason").read_text() == "diverged"


@pytest.mark.parametrize("kind", ["tensorboard", "mlflow"])
def test_a_folder_is_written_whole_or_not_at_all(
    run: Run, study: None, fake: FakeServer, tmp_path: Path, kind: str
) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "mine").write_text("mine")
    assert "is there already" in run("export", "small", "--format", kind, "-o", str(there)).err
    assert (there / "mine").read_text() == "mine"
    assert run("export", "small", "--format", kind).code == 2
    looked: list[str] = []

    def vanish(name: str) -> None:
        """The trials but the first are gone after the list was read."""
        looked.append(name)
        if len(looked) == 4:
            fake.trials["small"] = fake.trials["small"][:1]

    fake.on_read = vanish
    assert run("export", "small", "--format", kind, "-o", str(tmp_path / "new")).code == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["there"]
    one = run("export", "small", "--format", kind, "-o", str(tmp_path / "one"), "--trial", "0")
    assert one.code == 0
