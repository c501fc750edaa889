"""What a path amounts to: files, folders, jsonl, saved datasets; their splits; bad ones."""

import json
import os
import sys

import pytest

from studies.corpus import split, text_sha256
from studies.documents import resolve
from studies.errors import InvalidInput
from studies.recipe import DataRecipe


@pytest.fixture
def put(tmp_path):
    """Returns a function that writes files: name to text or bytes."""

    def write(files):
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return write


@pytest.fixture
def read(tmp_path):
    return lambda name=".", **knobs: resolve(DataRecipe(path=name, **knobs), tmp_path)


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_a_text_file_is_its_bytes(put, read):
    put({"a.txt": "né\r\n"})
    data, text = read("a.txt", tokenizer="words")
    assert text == "né\r\n"
    assert data == DataRecipe(sha256=text_sha256(text), tokenizer="words")
    assert data.model_fields_set == {"sha256", "tokenizer"}


def test_a_builtin_text_keeps_its_name():
    data = DataRecipe(builtin="stdlib")
    same, text = resolve(data)
    assert same is data
    assert len(text) > 900_000


def test_jsonl_is_one_document_per_line(put, read):
    put({"a.jsonl": lines({"text": "one\u2028line"}, {"text": "two", "id": 7}) + "\n"})
    assert read("a.jsonl")[1] == "one\u2028line\n\ntwo"
    put({"b.jsonl": lines({"body": "one\n"}, {"body": "two\n"})})
    assert read("b.jsonl", text_field="body", separator="")[1] == "one\ntwo\n"


def test_jsonl_from_windows_is_read_as_such(put, read):
    put({"A.JSONL": "\ufeff" + lines({"text": "one"}, {"text": "two"}).replace("\n", "\r\n")})
    assert read("A.JSONL")[1] == read()[1] == "one\n\ntwo"


def test_a_folder_is_its_texts_in_the_order_of_their_paths(put, read):
    put({"b.md": "B", "a/z.txt": "AZ", "a/c.jsonl": lines({"text": "AC"}), "image.png": b"\xff"})
    put({".git/x.txt": "no", "a/.hidden.txt": "no"})
    data, text = read()
    assert text == "AC\n\nAZ\n\nB"
    assert (data.validation_at, data.test_at) == (None, None)


@pytest.mark.parametrize("names", [
    ("train.txt", "valid.txt", "test.txt"), ("wiki.train.tokens", "val.txt", "test.jsonl"),
], ids=str)  # fmt: skip
def test_a_folder_of_splits_keeps_them(put, read, names):
    texts = ("eins zwei\n", "drei\n", "vier")
    for name, text in zip(names, texts, strict=True):
        put({name: lines({"text": text}) if name.endswith("jsonl") else text})
    put({"SOURCE.md": "is not read"})
    data, text = read()
    assert split(text, data) == texts
    assert (data.validation_at, data.test_at) == (10, 15)


def test_without_a_validation_file_it_is_a_part_of_the_training_file(put, read):
    put({"train.txt": "abcdefgh", "test.txt": "ij"})
    data, text = read(validation_fraction=0.25)
    assert split(text, data) == ("abcdef", "gh", "ij")


def test_a_train_file_alone_is_a_text(put, read):
    put({"train.txt": "a", "notes.txt": "b"})
    assert read()[1] == "b\n\na"


@pytest.mark.parametrize(
    ("files", "name", "knobs", "message"),
    [
        ({"a.png": "x"}, ".", {}, r"data\.path: .* has no file that ends in \.txt"),
        ({"a.txt": b"ab\xff"}, ".", {}, r"a\.txt is not UTF-8 \(byte 2\)"),
        ({"a.txt": ""}, ".", {}, r"a\.txt is empty"),
        ({"a.jsonl": lines({"text": "x"}) + "{"}, "a.jsonl", {}, r"line 2 is no JSON"),
        ({"a.jsonl": "[" * 100_000}, "a.jsonl", {}, r"line 1 is no JSON"),
        ({"a.jsonl": "7\n"}, "a.jsonl", {}, r"line 1 is no JSON object"),
        ({"a.jsonl": "\n" + lines({"body": "x"})}, "a.jsonl", {}, r"has no field 'text'.*body"),
        ({"a.jsonl": lines({"text": None})}, "a.jsonl", {}, r"text_field: .*line 1: text is no"),
        ({"a.jsonl": '{"text": "\\ud800"}'}, "a.jsonl", {}, r"half of a surrogate pair, '\\ud800'"),
        ({"a.jsonl": lines({"text": ""})}, "a.jsonl", {}, r"a\.jsonl has no text"),
        ({"dataset_dict.json": '{"splits": 5}'}, ".", {}, r"dataset_dict\.json cannot be read"),
        ({"dataset_dict.json": '{"splits": ["train", "dev", "valid"]}'}, ".", {},
         r"two validation splits: dev and valid"),
        ({"state.json": '{"_data_files": [{}]}'}, ".", {}, r"state\.json cannot be read: KeyError"),
        ({"train.txt": "a", "valid.txt": "b", "val.md": "c"}, ".", {}, r"two validation splits"),
        ({"train.txt": "a", "valid.txt": "b"}, ".", {"validation_fraction": 0.2},
         r"data\.validation_fraction: the text brings its own split"),
        ({"train.txt": "a", "valid.txt": "b"}, ".", {"validation_at": 1},
         r"data\.validation_at: the source brings its own splits"),
    ],
)  # fmt: skip
def test_a_bad_source_names_the_field_the_place_and_the_remedy(
    put, read, files, name, knobs, message
):
    put(files)
    with pytest.raises(InvalidInput, match=message) as raised:
        read(name, **knobs)
    assert all(error.remedy for error in raised.value.errors)


# ---------------------------------------------------------------- datasets saved on disk


def save(folder, texts, field="text", rows_at_once=2):
    """Writes what `datasets.Dataset.save_to_disk` writes: two Arrow streams and their list."""
    arrow = pytest.importorskip("pyarrow", reason="pip install 'lmtune[datasets]'")
    folder.mkdir(parents=True)
    table = arrow.table({"id": list(range(len(texts))), field: texts})
    half = len(texts) // 2
    names = [f"data-0000{i}-of-00002.arrow" for i in range(2)]
    for name, part in zip(names, (table[:half], table[half:]), strict=True):
        with arrow.ipc.new_stream(str(folder / name), table.schema) as stream:
            stream.write_table(part, max_chunksize=rows_at_once)
    state = {"_data_files": [{"filename": name} for name in names], "_split": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")


def test_a_saved_dataset_is_its_rows_in_order(read, tmp_path):
    save(tmp_path / "set", ["a\n", "b\n", "é\n", "d\n", "e\n"], field="body")
    assert read("set", text_field="body", separator="")[1] == "a\nb\né\nd\ne\n"


def test_a_saved_dataset_dict_keeps_its_splits(read, tmp_path):
    save(tmp_path / "set" / "test", ["e", "f"])
    save(tmp_path / "set" / "train", ["a", "b"])
    save(tmp_path / "set" / "validation", ["c", "d"])
    said = {"splits": ["test", "train", "validation", "unsupervised"]}
    (tmp_path / "set" / "dataset_dict.json").write_text(json.dumps(said))
    data, text = read("set")
    assert split(text, data) == ("a\n\nb", "c\n\nd", "e\n\nf")


def test_a_bad_dataset_names_the_field_and_the_remedy(read, tmp_path):
    save(tmp_path / "set", ["a", None])
    with pytest.raises(InvalidInput, match=r"data\.text_field: .*not every text is a text"):
        read("set")
    with pytest.raises(InvalidInput, match=r"no field 'body'.*it has id, text"):
        read("set", text_field="body")
    (tmp_path / "set" / "data-00000-of-00002.arrow").write_bytes(os.urandom(999))
    with pytest.raises(InvalidInput, match=r"00000-of-00002\.arrow is no Arrow stream"):
        read("set")
    (tmp_path / "set" / "state.json").write_text("{}")
    with pytest.raises(InvalidInput, match=r"state\.json cannot be read.*save the dataset again"):
        read("set")


def test_parts_without_a_training_split_are_listed(put, read):
    put({"dataset_dict.json": json.dumps({"splits": ["test", "extra"]})})
    with pytest.raises(InvalidInput, match=r"no split `train`, but test, extra"):
        read()


def test_a_dataset_without_pyarrow_says_what_to_install(put, read, monkeypatch):
    put({"state.json": "{}"})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InvalidInput, match=r"pip install 'lmtune\[datasets\]'"):
        read()
