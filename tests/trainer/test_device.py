"""What the device says when its memory is used up."""

import pytest
import torch

from trainer.device import is_out_of_memory, out_of_memory_reason


@pytest.mark.parametrize(("error", "said"), [
    (MemoryError(), "out of memory (peak "),
    (MemoryError("std::bad_alloc"), "out of memory: std::bad_alloc (peak "),
    (RuntimeError("could not create a primitive"), "out of memory: could not create a primitive ("),
    (RuntimeError("could not execute a primitive"), "out of memory: could not execute a primitive"),
    (RuntimeError("you have not enough memory\nat ..."), "you have not enough memory (peak "),
], ids=str)  # fmt: skip
def test_every_way_to_run_out_of_memory_is_known_and_said(error, said):
    assert is_out_of_memory(error)
    assert out_of_memory_reason(error, torch.device("cpu")).startswith(said)


@pytest.mark.parametrize("said", [
    "mat1 and mat2 shapes cannot be multiplied",
    "could not create a primitive descriptor for an LSTM forward propagation primitive",
])  # fmt: skip
def test_another_error_of_torchs_is_none_of_memory(said):
    assert not is_out_of_memory(RuntimeError(said))
