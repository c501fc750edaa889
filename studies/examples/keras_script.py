"""A training script in Keras on TensorFlow: a small character model, tuned by keras_script.yaml.

Needs TensorFlow where it runs: pip install tensorflow. Alone: python keras_script.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from studies.client import Trial, current_trial

DEFAULTS = {
    "learning_rate": 0.01,
    "units": 32,
    "steps": 40,
    "evaluate_every": 20,
    "batch_size": 16,
    "sequence_length": 32,
}


def sequences(text: str, length: int) -> tuple[Any, int]:
    """Returns the text as rows of one character more than is predicted, and the vocabulary size."""
    import numpy as np

    letters, ids = np.unique(np.array(list(text)), return_inverse=True)
    rows = len(ids) // (length + 1)
    return ids[: rows * (length + 1)].reshape(rows, length + 1), len(letters)


def train(trial: Trial) -> None:
    """Trains as the trial says, a part at a time; ends early when it is told to."""
    import keras

    p = trial.params
    keras.utils.set_random_seed(p["seed"] % 2**32)
    text = Path(trial.text or __file__).read_text(encoding="utf-8")
    rows_BT, vocabulary = sequences(text, p["sequence_length"])
    cut = len(rows_BT) * 9 // 10
    model = keras.Sequential(
        [
            keras.layers.Embedding(vocabulary, p["units"]),
            keras.layers.GRU(p["units"], return_sequences=True),
            keras.layers.Dense(vocabulary),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(p["learning_rate"]), loss)
    validation_BT = rows_BT[cut:][:64]
    for step in range(1, p["steps"] + 1):
        start = step * p["batch_size"] % max(cut - p["batch_size"], 1)
        batch_BT = rows_BT[start : start + p["batch_size"]]
        model.train_on_batch(batch_BT[:, :-1], batch_BT[:, 1:])
        if step % p["evaluate_every"] == 0 or step == p["steps"]:
            value = model.evaluate(validation_BT[:, :-1], validation_BT[:, 1:], verbose=0)
            trial.report(step=step, validation_loss=value)
        if trial.should_stop:
            return


if __name__ == "__main__":
    try:
        import tensorflow  # noqa: F401 - Keras finds it; here the error can say what to do
    except ImportError:
        sys.exit("keras_script.py needs TensorFlow: pip install tensorflow")
    with current_trial(DEFAULTS) as current:
        train(current)
