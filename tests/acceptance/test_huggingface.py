"""Models of transformers, each tuned in a small study by a real server and a real worker."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import transformers

from tests.acceptance import tiny

pytestmark = pytest.mark.slow
SHAPE = {"embedding_dim": 32, "hidden_dim": 64, "heads": 2, "layers": 1}
PARTS = {
    "train": {"steps": 60, "batch_size": 8, "sequence_length": 32, "evaluate_every": 30},
    "search": {"learning_rate": {"log": [1e-3, 1e-1]}, "attention_dropout": {"uniform": [0, 0.3]}},
    "budget": {"trials": 3},
}


def saved(folder: Path, ids: int) -> str:
    """Returns a folder as `transformers` saves a model."""
    config = transformers.GPT2Config(
        vocab_size=ids, n_embd=32, n_layer=1, n_head=2, n_positions=32,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    return str(folder)


def test_bert_gpt2_and_a_saved_folder_are_tuned(make_server, make_worker, tmp_path: Path) -> None:
    server = make_server()
    ids = len(set(tiny.TEXT))
    models = {
        "bert": {"kind": "bert", **SHAPE},
        "gpt2": {"kind": "gpt2", **SHAPE},
        "folder": {"kind": "gpt2", "folder": saved(tmp_path / "saved", ids)},
    }
    for name, model in models.items():
        tiny.create(server, tmp_path, **PARTS, name=name, model=model)
    make_worker(server)
    for name in models:
        server.wait_for_end(name, 240)
        tiny.assert_whole(server, trials=3, study=name)
        trials = server.client.studies.trials(name)
        assert min(trial.value for trial in trials) < 0.9 * math.log(ids)  # a uniform guess
    missing = tiny.create(
        server, tmp_path, **PARTS, name="missing", model={"kind": "gpt2", "folder": "/none"}
    )
    study = server.wait_for_end(missing, 120)
    assert "COMPLETE" not in study.counts
    attempt = server.client.studies.trial(missing, 0).attempts[0]
    assert "model.folder: this worker has no folder /none" in attempt.reason
