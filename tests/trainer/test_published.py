"""The published word-level recipe: our ready study of it beside the loop it was published with.

The other loop does what word_language_model of pytorch/examples does: streams side by side are
read 35 tokens at a time, the memory of the LSTM is carried from window to window, forgotten at the
start of an epoch, SGD without momentum at rate 20, gradients clipped to a norm of 0.25.
"""

import random

import pytest
import torch
from torch import nn
from torch.nn import functional

from studies.files import catalog
from studies.spec import load_spec
from trainer.data import dataset
from trainer.run import Run

STUDY = load_spec(catalog()["wikitext2-published"])
BATCH, LENGTH, WINDOWS, EPOCHS = 20, 35, 12, 2  # what the other loop does, whatever our study says
STREAM = WINDOWS * LENGTH + 1  # tokens: whole windows, and the last one's target
RATE, CLIP, RANGE = 20.0, 0.25, 0.1


def sentences(words, seed):
    draw = random.Random(seed)
    ranked = [f"w{n}" for n in range(120)]
    weights = [1 / (n + 1) for n in range(120)]
    return " ".join(draw.choices(ranked, weights, k=words)) + " "


def recipe(text):
    """Returns the recipe of the study for a short text: epochs in which no rate is divided."""
    assert STUDY.train.evaluate_every == 2_983  # an epoch of the real text
    assert STUDY.train.steps == 40 * 2_983
    assert STUDY.train.steps * STUDY.train.ladder_every >= EPOCHS * 2_983
    assert (STUDY.model.dropout, STUDY.train.ladder_factor) == (0.2, 0.25)
    return STUDY.recipe({}, 0).with_knobs({
        "path": None, "sha256": "0" * 64, "validation_at": len(text) - len(sentences(400, 2)),
        "dropout": 0.0,  # theirs would draw others
        "steps": EPOCHS * WINDOWS, "evaluate_every": WINDOWS, "schedule": "constant", "seed": 1,
    })  # fmt: skip


class Theirs(nn.Module):
    """Embedding, a stack of LSTM layers, linear; without dropout, whose draws would differ."""

    def __init__(self, vocabulary):
        super().__init__()
        self.encoder = nn.Embedding(vocabulary, 200)
        self.rnn = nn.LSTM(200, 200, 2)
        self.decoder = nn.Linear(200, vocabulary)

    def forward(self, x_TB, memory):
        out_TBH, memory = self.rnn(self.encoder(x_TB), memory)
        return self.decoder(out_TBH), memory

    @torch.no_grad()
    def begin_as(self, model):
        """Takes our model's weights."""
        self.encoder.weight.copy_(model.embedding.weight)
        self.decoder.weight.copy_(model.output.weight)
        self.decoder.bias.copy_(model.output.bias)
        for n, layer in enumerate(model.layers):
            for name, weight in layer.named_parameters():
                getattr(self.rnn, name.replace("_l0", f"_l{n}")).copy_(weight)


def their_epochs(model, train_N, validation_N):
    """Yields the validation loss after each epoch [nats per token]."""
    train_SB = train_N[: STREAM * BATCH].long().view(BATCH, STREAM).t()
    for _ in range(EPOCHS):
        memory = None
        for begin in range(0, STREAM - 1, LENGTH):
            x_TB = train_SB[begin : begin + LENGTH]
            y_TB = train_SB[begin + 1 : begin + 1 + LENGTH]
            memory = memory and tuple(z.detach() for z in memory)
            logits_TBV, memory = model(x_TB, memory)
            loss = functional.cross_entropy(logits_TBV.flatten(0, 1), y_TB.flatten())
            model.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(parameter.grad, alpha=-RATE)
        with torch.no_grad():
            v = validation_N.long()[:, None]
            logits, _ = model(v[:-1], None)
        yield functional.cross_entropy(logits.flatten(0, 1), v[1:].flatten()).item()


def test_the_first_epochs_are_those_of_the_published_loop(monkeypatch):
    monkeypatch.setattr("trainer.evaluate.STREAMS", 1)  # one cold start, as theirs
    text = sentences(STREAM * BATCH + 7, 1) + sentences(400, 2)
    run = Run(recipe(text), text)
    tokens = dataset(text, run.recipe.data)
    other = Theirs(tokens.vocabulary)
    other.begin_as(run._model)
    ours = []
    for _ in range(EPOCHS * WINDOWS):
        run.step()
        if run.due:
            ours.append(run.evaluate().metrics["validation_loss"])
    theirs = list(their_epochs(other, tokens.train_N, tokens.validation_N))
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert theirs[1] < theirs[0] < tokens.unigram_loss + 1  # and it learned


def test_embedding_and_output_begin_as_published(monkeypatch):
    text = sentences(STREAM * BATCH + 7, 1) + sentences(400, 2)
    model = Run(recipe(text), text)._model
    for weight in (model.embedding.weight, model.output.weight):
        assert weight.abs().max() <= RANGE
        assert weight.std().item() == pytest.approx(RANGE / 3**0.5, rel=0.02)
    assert not model.output.bias.any()
