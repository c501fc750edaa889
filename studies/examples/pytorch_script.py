"""A training script in plain PyTorch: a small character model, tuned by pytorch_script.yaml.

Alone, it tries itself out:  LMTUNE_PARAMS='{"units": 32}' python pytorch_script.py
Under a worker:              lmtune-worker --allow-script studies/examples/pytorch_script.py
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from studies.client import Trial, current_trial

# Shapes: B sequences of a batch, T characters of a sequence, V characters of the vocabulary.
DEFAULTS = {
    "learning_rate": 0.01,
    "units": 32,
    "cell": "gru",
    "steps": 100,
    "evaluate_every": 20,
    "batch_size": 16,
    "sequence_length": 32,
}
CELLS = {"gru": nn.GRU, "rnn": nn.RNN}


class CharacterModel(nn.Module):
    """Predicts the next character with one recurrent layer."""

    def __init__(self, vocabulary: int, units: int, cell: str) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, units)
        self.recurrent = CELLS[cell](units, units, batch_first=True)
        self.output = nn.Linear(units, vocabulary)

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Returns the logits of each next character, BTV."""
        return self.output(self.recurrent(self.embedding(ids_BT))[0])


def loss_of(model: nn.Module, ids_BT: Tensor) -> Tensor:
    """Returns the mean loss of predicting each character but the first [nats]."""
    logits_BTV = model(ids_BT[:, :-1])
    return nn.functional.cross_entropy(logits_BTV.flatten(0, 1), ids_BT[:, 1:].flatten())


def batches(ids: Tensor, count: int, length: int) -> Tensor:
    """Returns random sequences of the text, BT with one character more than is predicted."""
    starts = torch.randint(len(ids) - length, (count, 1))
    return ids[starts + torch.arange(length + 1)]


def train(trial: Trial) -> None:
    """Trains as the trial says; reports every so often, and ends early when it is told to."""
    p = trial.params
    torch.manual_seed(p["seed"])
    text = Path(trial.text or __file__).read_text(encoding="utf-8")
    letters = {letter: number for number, letter in enumerate(sorted(set(text)))}
    ids = torch.tensor([letters[letter] for letter in text])
    cut = len(ids) * 9 // 10
    validation_BT = batches(ids[cut:], 64, p["sequence_length"])
    model = CharacterModel(len(letters), p["units"], p["cell"])
    optimizer = torch.optim.Adam(model.parameters(), lr=p["learning_rate"])
    for step in range(1, p["steps"] + 1):
        optimizer.zero_grad()
        loss_of(model, batches(ids[:cut], p["batch_size"], p["sequence_length"])).backward()
        optimizer.step()
        if step % p["evaluate_every"] == 0 or step == p["steps"]:
            with torch.no_grad():
                trial.report(step=step, validation_loss=loss_of(model, validation_BT).item())
        if trial.should_stop:
            return


if __name__ == "__main__":
    with current_trial(DEFAULTS) as current:
        train(current)
