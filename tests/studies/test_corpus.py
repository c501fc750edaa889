"""The builtin text, reading, the split, counting, and the check that a text is long enough."""

import hashlib
import math
from collections import Counter

import pytest

from studies import corpus
from studies.errors import InvalidInput, StartupError
from studies.recipe import Recipe


def recipe(data=None, **train):
    train = {"batch_size": 2, "sequence_length": 8, **train}
    return Recipe.model_validate({"data": {"builtin": "stdlib", **(data or {})}, "train": train})


def unigram(train, validation):
    counts, size = Counter(train), len(train) + len(set(train) | set(validation))
    return -sum(math.log((counts[c] + 1) / size) for c in validation) / len(validation)


def test_builtin_text_is_a_million_characters_and_the_same_each_time():
    text = corpus.builtin_text("stdlib")
    assert 900_000 < len(text) < 1_200_000
    assert text == corpus.builtin_text("stdlib")


def test_the_validation_split_of_the_builtin_text_resembles_its_training_split():
    train, validation = corpus.split(corpus.builtin_text("stdlib"), recipe().data)[:2]
    assert "import " in validation
    assert unigram(train, validation) == pytest.approx(unigram(train, train), rel=0.05)


def test_a_python_without_its_source_says_so_in_one_line(monkeypatch):
    monkeypatch.setattr(corpus, "STDLIB_MODULES", ("no_such_module",))
    with pytest.raises(StartupError, match=r"source of no_such_module.*data\.path"):
        corpus.builtin_text("stdlib")


def test_unknown_builtin_is_refused():
    with pytest.raises(InvalidInput, match=r"data\.builtin"):
        corpus.builtin_text("internet")


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), (b"", "empty"), (b"a\xff", "not UTF-8 .byte 1")],
)
def test_a_file_that_is_no_text_names_the_field(tmp_path, content, message):
    path = tmp_path / "corpus.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidInput, match=message) as raised:
        corpus.read_text(path)
    assert raised.value.errors[0].field == "data.path"
    assert raised.value.errors[0].remedy


def test_a_folder_is_no_text(tmp_path):
    with pytest.raises(InvalidInput, match="directory"):
        corpus.read_text(tmp_path)


def test_text_is_read_as_it_is_and_hashes_agree(tmp_path):
    content = "né\r\nline\n".encode()
    path = tmp_path / "corpus.txt"
    path.write_bytes(content)
    text = corpus.read_text(path)
    assert text == "né\r\nline\n"
    digest = hashlib.sha256(content).hexdigest()
    assert corpus.file_sha256(path) == corpus.text_sha256(text) == digest


def test_load_text_finds_an_upload(tmp_path):
    (tmp_path / ("0" * 64)).write_text("by hash")
    data = recipe({"builtin": None, "sha256": "0" * 64}).data
    assert corpus.load_text(data, tmp_path.joinpath) == "by hash"


def test_the_split_is_nanogpts():
    train, validation, test = corpus.split("x" * 1_115_394, recipe().data)
    assert (len(train), len(validation), len(test)) == (1_003_854, 111_540, 0)


@pytest.mark.parametrize(
    ("cuts", "parts"),
    [
        ({"test_fraction": 0.2}, ("abcdefg", "h", "ij")),
        ({"validation_fraction": 0.3, "test_fraction": 0.2}, ("abcde", "fgh", "ij")),
        ({"validation_at": 4}, ("abcd", "efghij", "")),
        ({"validation_at": 4, "test_at": 5}, ("abcd", "e", "fghij")),
        ({"validation_fraction": 0.25, "test_at": 8}, ("abcdef", "gh", "ij")),
        ({"validation_at": 4, "test_fraction": 0.1}, ("abcd", "efghi", "j")),
    ],
)
def test_training_validation_and_test_stand_in_this_order(cuts, parts):
    assert corpus.split("abcdefghij", recipe(cuts).data) == parts


def test_a_cut_past_the_end_is_of_another_text():
    with pytest.raises(InvalidInput, match=r"data\.test_at: 11 is past the text's end \(10"):
        corpus.split("abcdefghij", recipe({"validation_at": 4, "test_at": 11}).data)


@pytest.mark.parametrize(
    ("cuts", "message"),
    [
        ({"validation_at": 5, "test_at": 5}, "data.test_at"),
        ({"validation_at": 5, "validation_fraction": 0.2}, "data.validation_fraction"),
        ({"test_at": 5, "test_fraction": 0.2}, "data.test_fraction"),
    ],
)
def test_cuts_that_contradict_each_other_name_the_field(cuts, message):
    with pytest.raises(ValueError, match=message):
        recipe(cuts)


@pytest.mark.parametrize(("tokenizer", "count"), [("bytes", 12), ("characters", 11), ("words", 5)])
def test_tokens_are_counted(tokenizer, count):
    assert corpus.count_tokens("to  bé\n\n or", tokenizer) == count


def test_a_text_just_long_enough_passes():
    facts = corpus.check_corpus("x" * 20, recipe())
    assert (facts.train_tokens, facts.validation_tokens, facts.characters) == (18, 2, 20)


def test_a_text_shorter_than_a_batch_names_the_field_and_the_remedy():
    with pytest.raises(InvalidInput, match=r"17 tokens, one batch needs 18.*batch_size"):
        corpus.check_corpus("x" * 19, recipe())
    with pytest.raises(InvalidInput, match=r"data\.validation_fraction.*longer text"):
        corpus.check_corpus("x" * 100, recipe({"validation_fraction": 0.01}))


def test_a_test_split_needs_two_tokens_where_it_is_asked_for():
    cuts = {"validation_at": 80, "test_at": 99}
    with pytest.raises(InvalidInput, match=r"data\.test_at: the test split has 1 tokens"):
        corpus.check_corpus("x" * 100, recipe(cuts))
    cuts["test_at"] = 98
    assert corpus.check_corpus("x" * 100, recipe(cuts)).test_tokens == 2
