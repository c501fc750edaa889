"""A study's winner: its checkpoint is downloaded, and judged on the test split."""

from __future__ import annotations

import math
import re
from pathlib import Path

from safetensors import safe_open

from studies.corpus import builtin_text
from tests.acceptance import tiny
from tests.acceptance.tiny import lmtune

PARTS = {
    "train": {"steps": 40, "batch_size": 8, "sequence_length": 32, "evaluate_every": 20},
    "budget": {"trials": 2},
}


def test_the_best_trial_is_tested_on_text_that_no_trial_has_seen(
    make_server, make_worker, tmp_path: Path
) -> None:
    server, text = make_server(), tmp_path / "text.txt"
    text.write_text(builtin_text("stdlib")[:100_000] + "zq" * 5_000)  # another language at the end
    data = {"path": str(text), "test_fraction": 10_000 / 110_000}
    tiny.create(server, tmp_path, **PARTS, data=data)
    assert lmtune(server, "test", "tiny").returncode != 0  # nothing is complete yet
    make_worker(server)
    server.wait_for_end("tiny", 120)
    best = server.client.studies.best("tiny")
    assert best.value is not None
    assert best.attempts[-1].environment["test_tokens"] == 10_000

    done = lmtune(server, "test", "tiny")
    assert done.returncode == 0, done.stderr
    first, last = done.stdout.splitlines()[-2:]
    assert first.startswith(f"trial {best.number} of tiny: validation loss {best.value:.4f}")
    said = re.fullmatch(
        r"step 40: test loss ([\d.]+), bits per byte ([\d.]+), perplexity ([\d.]+)", last
    )
    assert said, last
    loss, bits, perplexity = map(float, said.groups())
    assert loss > best.value + 0.5  # far from what it learned
    assert abs(bits - loss / math.log(2)) < 1e-3
    assert abs(math.log(perplexity) - loss) < 1e-3

    file = tmp_path / "best.safetensors"
    done = lmtune(server, "checkpoint", "tiny", "-o", file)
    assert done.returncode == 0, done.stderr
    with safe_open(file, "pt") as weights:
        assert any(name.startswith("model.") for name in weights.keys())  # noqa: SIM118
    gone = lmtune(server, "checkpoint", "tiny", "--trial", "7", "-o", tmp_path / "none")
    assert gone.returncode != 0
    assert not list(tmp_path.glob("none*"))

    tiny.create(server, tmp_path, **{**PARTS, "name": "unsplit", "budget": {"trials": 1}})
    server.wait_for_end("unsplit", 120)
    done = lmtune(server, "test", "unsplit")
    assert done.returncode != 0
    assert "data.test_fraction" in done.stderr
    assert done.stderr.count("\n") == 1
