"""Checkpoint files: whole or absent, verified, never executable."""

import pytest
import torch
from safetensors.torch import save_file

from studies.corpus import file_sha256
from trainer import checkpoint
from trainer.checkpoint import CheckpointFile, CheckpointUnusable

CPU = torch.device("cpu")


def write(path):
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(7)}
    return checkpoint.save(path, tensors, {"step": 3, "best": None})


def test_what_was_saved_is_loaded(tmp_path):
    tensors, state = checkpoint.load(write(tmp_path / "c"), CPU)
    assert state == {"format": 1, "step": 3, "best": None}
    assert torch.equal(tensors["a"], torch.arange(6.0).view(2, 3))
    assert tensors["b"].item() == 7
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    old = write(tmp_path / "c")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path / "c")
    assert file_sha256(tmp_path / "c") == old.sha256


@pytest.mark.parametrize("damage", [
    lambda data: data[:-1],
    lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    lambda data: b"",
    lambda data: data + b"\0",
])  # fmt: skip
def test_a_damaged_file_is_refused(tmp_path, damage):
    file = write(tmp_path / "c")
    file.path.write_bytes(damage(file.path.read_bytes()))
    with pytest.raises(CheckpointUnusable, match="damaged"):
        checkpoint.load(file, CPU)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(CheckpointUnusable, match="No such file"):
        checkpoint.load(CheckpointFile(tmp_path / "c", "0" * 64), CPU)


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"\xff" * 64, b'{"a": 1}'])
def test_a_file_that_is_no_checkpoint_is_refused_though_its_hash_fits(tmp_path, content):
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(CheckpointUnusable, match="no checkpoint"):
        checkpoint.load(CheckpointFile(tmp_path / "c", file_sha256(tmp_path / "c")), CPU)


@pytest.mark.parametrize("metadata", [None, {"lmtune": "{"}, {"lmtune": '{"format": 2}'},
                                      {"lmtune": "[]"}])  # fmt: skip
def test_foreign_safetensors_are_refused(tmp_path, metadata):
    save_file({"a": torch.ones(2)}, tmp_path / "c", metadata)
    with pytest.raises(CheckpointUnusable):
        checkpoint.load(CheckpointFile(tmp_path / "c", file_sha256(tmp_path / "c")), CPU)
