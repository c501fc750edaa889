"""Tokenizers that learn, or come from a file; ids that wait on the disk."""

import contextlib
import json
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version

import pytest
import torch
import transformers
from safetensors import safe_open
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from studies.corpus import builtin_text, file_sha256
from studies.errors import InvalidInput
from studies.explain import field_errors
from studies.recipe import DataRecipe
from trainer import data as module
from trainer.checkpoint import CheckpointUnusable
from trainer.data import dataset
from trainer.loop import train
from trainer.tokens import build_tokenizer

from .conftest import Recorder


def data(tokenizer, **knobs):
    return DataRecipe(builtin="stdlib", tokenizer=tokenizer, **knobs)


@pytest.fixture(scope="module")
def source():
    return builtin_text("stdlib")[:300_000]


@pytest.fixture(scope="module")
def bpe(source):
    return build_tokenizer(source, source[:200_000], data("bpe", vocabulary_size=1_000))


def test_byte_pairs_give_the_text_back_and_fewer_ids(bpe, source):
    held_back = source[200_000:] + " é 漢字\x00 \n\n  \n\tx"
    ids = bpe.encode(held_back)
    assert bpe.vocabulary == 1_000
    assert int(ids.min()) >= 0
    assert int(ids.max()) < 1_000
    assert bpe._inner.decode(ids.tolist()) == held_back
    assert len(ids) < 0.45 * len(held_back.encode())


def test_pieces_change_no_id(bpe, source, monkeypatch):
    whole = torch.tensor(bpe._inner.encode(source).ids, dtype=torch.int32)
    monkeypatch.setattr("trainer.tokens._CHUNK", 100)
    assert torch.equal(bpe.encode(source), whole)


def test_byte_pairs_are_learned_from_the_training_split_alone(source):
    parts = [source[:50_000] + tail for tail in (" zyzzyva" * 2_000, " quixotry" * 2_000)]
    ids = [dataset(text, data("bpe", vocabulary_size=500, validation_at=50_000)) for text in parts]
    assert torch.equal(ids[0].train_N, ids[1].train_N)
    assert ids[0].vocabulary == 500


def test_bits_per_byte_count_what_is_predicted(source):
    text = source[:100_000]
    tokens = dataset(text, data("bpe", vocabulary_size=400))
    validation = text[90_000:]
    first = build_tokenizer(text, text[:90_000], data("bpe", vocabulary_size=400)).first(validation)
    assert first
    assert validation.startswith(first)
    assert tokens.bytes["validation"] == len(validation.encode()) - len(first.encode())


@pytest.fixture
def published(tmp_path):
    """A folder as transformers saves a BERT's tokenizer; it has an id that hides."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz ,.\n"]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))  # noqa: S106
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.decoder = decoders.Fuse()
    kept = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, mask_token="[MASK]")  # noqa: S106
    kept.save_pretrained(tmp_path / "published")
    return tmp_path / "published"


def test_a_published_tokenizers_own_ids_are_taken_and_none_added(published):
    text = "the cat sat. " * 400
    for path in (published, published / "tokenizer.json"):
        tokens = dataset(text, data("file", tokenizer_file=str(path)))
        theirs = transformers.AutoTokenizer.from_pretrained(published)
        ids = theirs(text, add_special_tokens=False)["input_ids"]
        assert torch.cat([tokens.train_N, tokens.validation_N]).tolist() == ids
        assert tokens.mask == theirs.mask_token_id == 4
        assert len(tokens.tokenizer_sha256) == 64


def test_a_masked_model_hides_with_the_tokenizers_own_id(tiny, published, tmp_path):
    config = transformers.BertConfig(
        vocab_size=35, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=16,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path / "bert")
    text = "the quick brown fox, the lazy dog. " * 400
    recipe = tiny(
        kind="bert", folder=str(tmp_path / "bert"), tokenizer="file", tokenizer_file=str(published)
    )
    train(recipe, text, recorder := Recorder())
    assert recorder.environment["vocabulary"] == 35  # and not one more than the model has
    assert recorder.losses[-1] < recorder.losses[0]


def test_another_tokenizer_in_the_same_place_is_another_run(tiny, fit, published):
    recipe = tiny(tokenizer="file", tokenizer_file=str(published))
    _, _, files = fit(recipe)
    file = published / "tokenizer.json"
    said = json.loads(file.read_text())
    said["model"]["vocab"]["!"] = 35
    file.write_text(json.dumps(said))
    dataset.cache_clear()
    with pytest.raises(Exception, match="belongs to another tokenizer"):
        fit(recipe, start=files.files[6], name="b")


def learned_otherwise(text, train, data):
    """The tokenizer that another version of the package could have learned."""
    return build_tokenizer(text, train[: len(train) // 2], data)


def test_byte_pairs_that_were_learned_otherwise_are_another_run(tiny, fit, monkeypatch):
    recipe = tiny(tokenizer="bpe", vocabulary_size=290)
    _, recorder, files = fit(recipe)
    assert len(recorder.environment["tokenizer_sha256"]) == 64
    assert recorder.environment["tokenizers"] == version("tokenizers")
    dataset.cache_clear()
    assert fit(recipe, start=files.files[6], name="again")[0].outcome == "ok"
    dataset.cache_clear()
    monkeypatch.setattr(module, "build_tokenizer", learned_otherwise)
    with pytest.raises(CheckpointUnusable, match="belongs to another tokenizer"):
        fit(recipe, start=files.files[6], name="b")
    dataset.cache_clear()


@pytest.mark.parametrize("tokenizer", ["bytes", "characters", "words", "bpe", "file"])
def test_a_checkpoint_carries_what_turns_its_ids_into_text(
    tiny, fit, text, tokenizer, published, monkeypatch
):
    recipe = tiny(tokenizer=tokenizer, vocabulary_size=290, tokenizer_file=str(published), steps=1)
    _, _, files = fit(recipe)
    with safe_open(files.files[1].path, "pt") as file:
        carried = file.metadata().get("tokenizer")
    ids = dataset(text, recipe.data).train_N[:50].tolist()
    if tokenizer == "bytes":
        assert carried is None
    elif tokenizer in ("bpe", "file"):
        assert text.startswith(Tokenizer.from_str(carried).decode(ids))
    else:
        parts = [json.loads(carried)[i] for i in ids]
        assert text.startswith((" " if tokenizer == "words" else "").join(parts))
    monkeypatch.setattr(module, "_CARRIED", 100)
    fresh = dataset.__wrapped__(text, recipe.data)
    assert fresh.tokenizer is None or len(fresh.tokenizer) <= 100
    assert fresh.tokenizer_sha256 == dataset(text, recipe.data).tokenizer_sha256


def test_a_vocabulary_with_gaps_reaches_to_its_last_id(published):
    file = published / "tokenizer.json"
    said = json.loads(file.read_text())
    said["model"]["vocab"]["\n"] = 90
    file.write_text(json.dumps(said))
    tokens = dataset("a line\n" * 50, data("file", tokenizer_file=str(published)))
    assert tokens.vocabulary == 91
    assert int(tokens.train_N.max()) == 90


@pytest.mark.parametrize(("content", "message"), [
    (None, "has no file"), ("{}", "is no tokenizer"), ("none", "is no tokenizer"),
])  # fmt: skip
def test_a_file_that_is_no_tokenizer_is_one_clear_error(tmp_path, content, message):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InvalidInput, match=message) as raised:
        dataset("a text that is long enough", data("file", tokenizer_file=str(path)))
    assert raised.value.errors[0].field == "data.tokenizer_file"
    assert raised.value.errors[0].remedy


@pytest.mark.parametrize(("knobs", "field"), [
    ({"tokenizer": "file"}, "data.tokenizer_file"),
    ({"tokenizer": "bpe", "vocabulary_size": 256}, "data.vocabulary_size"),
])  # fmt: skip
def test_knobs_that_do_not_fit_name_the_field(knobs, field):
    with pytest.raises(ValueError, match="data") as raised:
        DataRecipe(builtin="stdlib", **knobs)
    errors = field_errors(raised.value.errors(), DataRecipe)
    assert [error.field for error in errors] == [field]


# ------------------------------------------------------------------------------- stored ids


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """Texts of any size are stored, below this folder."""
    monkeypatch.setenv("LMTUNE_HOME", str(tmp_path))
    monkeypatch.setattr(module, "STORED_FROM", 1)
    return tmp_path / "cache" / "tokens"


def same(a, b):
    return all(
        torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y
        for x, y in zip(vars(a).values(), vars(b).values(), strict=True)
    )


@pytest.mark.parametrize("tokenizer", ["bytes", "characters", "words", "bpe"])
def test_stored_ids_are_those_of_memory_and_are_mapped(stored, source, tokenizer, monkeypatch):
    text, knobs = source[:50_000], data(tokenizer, vocabulary_size=400, test_fraction=0.1)
    fresh = dataset.__wrapped__(text, knobs)
    (file,) = stored.iterdir()
    monkeypatch.setattr(module, "_tokenised", None)  # is not asked again
    again = dataset.__wrapped__(text, knobs)
    assert same(fresh, again)
    with open("/proc/self/maps") as maps:
        assert file.name in maps.read()
    monkeypatch.undo()
    assert same(again, dataset.__wrapped__(text, knobs))


def test_a_file_whose_ids_are_stored_is_hashed_and_not_read(stored, tmp_path):
    """An upload is of any size, and each child of a machine would hold its text."""
    file, text = tmp_path / "upload", "some téxt of words " * 100_000
    file.write_text(text, encoding="utf-8")
    fresh = dataset.__wrapped__(file, data("words"))
    assert same(fresh, dataset.__wrapped__(text, data("words")))
    tracemalloc.start()
    again = dataset.__wrapped__(file, data("words"))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert same(again, fresh)
    assert most < len(text) / 4
    file.write_text(text.replace("words", "others"), encoding="utf-8")
    assert dataset.__wrapped__(file, data("words")).sha256 == file_sha256(file) != fresh.sha256


def test_workers_that_start_at_once_tokenise_a_text_once(stored, monkeypatch):
    """The first waits a while for the other, which would come too if nothing held it up."""
    both, calls, real = threading.Barrier(2), [], module._tokenised

    def tokenised(*arguments):
        calls.append(arguments)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.5)
        return real(*arguments)

    monkeypatch.setattr(module, "_tokenised", tokenised)
    with ThreadPoolExecutor(2) as workers:
        one, other = workers.map(dataset.__wrapped__, 2 * ["some text " * 500], 2 * [data("words")])
    assert len(calls) == 1
    assert same(one, other)


@pytest.mark.parametrize("spoil", [
    lambda f: f.write_bytes(f.read_bytes()[:-100]), lambda f: f.write_bytes(b""),
    lambda f: f.write_bytes(b"\xff" * 64),
])  # fmt: skip
def test_damaged_ids_are_made_again(stored, spoil):
    text = "some text " * 500
    fresh = dataset.__wrapped__(text, data("words"))
    fresh = replace(fresh, **{f"{n}_N": getattr(fresh, f"{n}_N").clone() for n in module._SPLITS})
    (file,) = stored.iterdir()
    whole = file.read_bytes()
    spoil(file)
    assert same(dataset.__wrapped__(text, data("words")), fresh)
    assert file.read_bytes() == whole


def test_other_splits_and_vocabularies_are_other_files(stored):
    text = "some text of words " * 500
    for knobs in ({}, {"vocabulary_size": 5}, {"validation_fraction": 0.2}, {"test_fraction": 0.1}):
        dataset.__wrapped__(text, data("words", **knobs))
    assert len(list(stored.iterdir())) == 4


def test_a_place_that_cannot_be_written_costs_only_the_keeping(stored):
    stored.parent.parent.mkdir(exist_ok=True)
    stored.parent.write_text("a file where the folder should be")
    text = "some text " * 500
    assert dataset.__wrapped__(text, data("words")).vocabulary == 3
