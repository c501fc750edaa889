"""Tokens, batches, and the unigram baseline."""

import math
from collections import Counter

import pytest

from studies.recipe import DataRecipe
from trainer.data import dataset, draw_seed


def data(tokenizer="bytes", **knobs):
    return DataRecipe(builtin="stdlib", tokenizer=tokenizer, **knobs)


def test_bytes_are_their_own_ids():
    tokens = dataset("héllo wörld", data(validation_fraction=0.5))
    assert tokens.vocabulary == 256
    assert bytes(tokens.train_N) + bytes(tokens.validation_N) == "héllo wörld".encode()


def test_characters_are_sorted_over_the_whole_text():
    tokens = dataset("bbbbbbbbaz", data("characters", validation_fraction=0.2))
    assert tokens.vocabulary == 3
    assert tokens.train_N.tolist() == [1] * 8
    assert tokens.validation_N.tolist() == [0, 2]


def test_rare_words_become_one_unknown_token_and_lines_are_kept():
    text = "a a a\nb b c\n" + "a zebra <unk>\n"
    tokens = dataset(text, data("words", vocabulary_size=4, validation_fraction=0.5))
    unknown, a, line, b = range(4)
    assert tokens.train_N.tolist() == [a, a, a, line, b, b, unknown, line, a][: len(tokens.train_N)]
    assert tokens.validation_N[-3:].tolist() == [unknown, unknown, line]


def test_a_text_is_tokenised_once():
    first = dataset("one text, one recipe", data())
    assert dataset("".join(["one text, ", "one recipe"]), data()) is first


def test_unigram_loss_is_that_of_smoothed_frequencies():
    text = "aab" * 40 + "abc" * 4
    tokens = dataset(text, data("characters"))
    cut = int(0.9 * len(text))
    counts = Counter(text[:cut])
    losses = [-math.log((counts[c] + 1) / (cut + 3)) for c in text[cut + 1 :]]
    assert tokens.unigram_loss == pytest.approx(sum(losses) / len(losses), rel=1e-12)


def test_bits_per_byte_of_bytes_are_nats_over_ln_2_and_characters_count_their_bytes():
    text = "aé" * 100
    assert dataset(text, data()).bits_per_byte(math.log(2)) == pytest.approx(1.0)
    characters = dataset(text, data("characters"))
    assert characters.bits_per_byte(math.log(2)) == pytest.approx(19 / 29)  # 20 less the first


def test_seeds_of_purposes_differ():
    assert len({draw_seed(1, 2, "a"), draw_seed(1, 2, "b"), draw_seed(2, 1, "a")}) == 3
