"""Where the windows of a step lie."""

import pytest
import torch

from studies.recipe import TrainRecipe
from trainer.batches import build_batches


def batches(windows="random", tokens=100, seed=3, batch_size=4, length=8):
    train = TrainRecipe(windows=windows, batch_size=batch_size, sequence_length=length, seed=seed)
    return build_batches(torch.arange(tokens, dtype=torch.int32), train)


@pytest.mark.parametrize("windows", ["random", "shuffled", "streams"])
def test_a_batch_depends_on_seed_and_step_only(windows):
    x_BT, y_BT = batches(windows).at(5)
    torch.manual_seed(99)
    again_BT, _ = batches(windows).at(5)
    assert x_BT.shape == (4, 8)
    assert torch.equal(x_BT, again_BT)
    assert torch.equal(y_BT, x_BT + 1)
    assert not torch.equal(x_BT, batches(windows).at(6)[0])
    if windows != "streams":
        assert not torch.equal(x_BT, batches(windows, seed=4).at(5)[0])


def test_every_random_window_can_be_drawn_the_last_too():
    drawn = batches(tokens=6, batch_size=64, length=4)
    firsts = {int(i) for step in range(4) for i in drawn.at(step)[0][:, 0]}
    assert firsts == {0, 1}


def test_a_pass_of_shuffled_windows_has_each_once_and_the_next_another_order():
    drawn = batches("shuffled", tokens=12 * 8 + 1, batch_size=5)
    starts = torch.cat([drawn.starts(step) for step in range(24)]).tolist()
    first, second = starts[:12], starts[12:24]
    assert sorted(first) == sorted(second) == list(range(0, 96, 8))
    assert first != second
    assert not any(drawn.continues(step) for step in range(24))


def test_streams_go_on_until_they_begin_anew():
    drawn = batches("streams", tokens=4 * 25 + 1)
    rows = [drawn.at(step)[0] for step in range(4)]
    assert rows[0][:, 0].tolist() == [0, 25, 50, 75]
    assert torch.equal(rows[1], rows[0] + 8)
    assert torch.equal(rows[2], rows[1] + 8)
    assert torch.equal(rows[3], rows[0])  # the 25th token of a stream fills no window
    assert [drawn.continues(step) for step in range(5)] == [False, True, True, False, True]
