"""Texts as numbers: what models of n-grams say of texts that they did not learn from, saved and restored."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mlxlab.data.labelled.types import ColumnType, TypedColumn
from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.models.cells.text_reader import (
    FILE,
    MAX_MODELS,
    fit_reader,
    is_consistent,
    load_readers,
    save_readers,
)

WORDS = ["red", "blue", "green", "fast", "slow", "car", "house", "tree"]


def column_of(count, seed=0):
    """Different texts, each in two rows, and a row without a text."""
    rng = np.random.default_rng(seed)
    texts = [f"{' '.join(rng.choice(WORDS, 6))} {number}" for number in range(count)]
    codes = np.append(np.tile(np.arange(count), 2), -1)
    return TypedColumn("text", ColumnType("text"), texts, codes)


def by_row(column, of_text):
    return np.array([*map(of_text, column.values), 0])[column.codes]


def test_numbers_say_the_class_of_texts_that_the_models_did_not_learn_from():
    column = column_of(200)
    targets = by_row(column, lambda text: "red" in text)
    fitted = fit_reader(column, targets.astype(np.int32), "classification", 2, seed=0)
    is_red = np.array(["red" in text for text in column.values])
    assert ((fitted.numbers[:, 0] > 0) == is_red).mean() > 0.95
    new = column_of(100, seed=1).values
    assert ((fitted.reader(new)[:, 0] > 0) == ["red" in text for text in new]).mean() > 0.95


def test_labels_without_a_pattern_are_known_of_learned_texts_alone():
    column = column_of(200)
    labels = np.random.default_rng(1).integers(2, size=len(column.values))
    targets = np.append(labels, 0)[column.codes]
    fitted = fit_reader(column, targets, "classification", 2, seed=0)
    assert ((fitted.reader(column.values)[:, 0] > 0) == labels).mean() > 0.8
    assert 0.35 < ((fitted.numbers[:, 0] > 0) == labels).mean() < 0.65


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_texts_that_share_nothing_are_not_told_apart_by_their_folds(kind):
    texts = [chr(0x4E00 + 2 * number) * 3 for number in range(400)]
    column = TypedColumn("text", ColumnType("text"), texts, np.arange(400))
    labels = np.random.default_rng(0).integers(2, size=400).astype(np.int32)
    fitted = fit_reader(column, labels, kind, 2 if kind == "classification" else 1, seed=0)
    means = [fitted.numbers[labels == label, 0].mean() for label in (0, 1)]
    spread = fitted.numbers[:, 0].std()
    assert abs(means[1] - means[0]) < 0.3 * spread


@pytest.mark.parametrize(
    ("kind", "num_classes", "models"),
    [("classification", 3, 3), ("classification", MAX_MODELS + 1, 0), ("multi_label", 4, 4)],
)
def test_there_is_a_model_for_each_class_or_label(kind, num_classes, models):
    column = column_of(100)
    targets = by_row(column, len) % num_classes
    if kind == "multi_label":
        targets = (targets[:, None] == np.arange(num_classes)).astype(np.float32)
    fitted = fit_reader(column, targets, kind, num_classes, seed=0)
    directions = 100 // 20
    assert fitted.numbers.shape == (100, models + directions)
    assert np.isfinite(fitted.numbers).all()
    assert is_consistent(fitted.reader)


def embed(texts):
    """Vectors whose first number says whether a text has a colour that no n-gram of it tells."""
    signs = [1.0 if len(text) % 2 else -1.0 for text in texts]
    others = [[len(text) % 3, len(text) % 5, 1.0] for text in texts]
    vectors = np.column_stack([signs, others]).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_there_are_models_of_ngrams_of_vectors_and_of_both():
    column = column_of(300)
    targets = by_row(column, len) % 2
    fitted = fit_reader(column, targets, "classification", 2, seed=0, embed=embed)
    assert [margin.group for margin in fitted.margins] == [0, 1, 2]
    assert fitted.reader.vector_size == 4
    assert is_consistent(fitted.reader)
    new = column_of(200, seed=1).values
    is_odd = np.array([len(text) % 2 == 1 for text in new])
    ngrams, vectors, both = ((fitted.reader(new, embed)[:, :3] > 0) == is_odd[:, None]).mean(axis=0)
    assert ngrams < 0.8
    assert min(vectors, both) > 0.95
    held_out = (fitted.numbers[:, 1] > 0) == [len(text) % 2 == 1 for text in column.values]
    assert held_out.mean() > 0.95


def test_a_column_without_ngrams_has_no_reader():
    column = TypedColumn("text", ColumnType("text"), ["", " "], np.array([0, 1]))
    assert fit_reader(column, np.array([0, 1]), "classification", 2, seed=0) is None


@pytest.fixture
def reader():
    column = column_of(60)
    return fit_reader(column, by_row(column, len) % 2, "classification", 2, seed=0).reader


def test_a_saved_reader_reads_as_before(reader, tmp_path):
    save_readers(tmp_path, {"a column.": reader, "b": reader})
    loaded = load_readers(tmp_path, ["a column.", "b"])
    texts = column_of(50, seed=2).values
    np.testing.assert_array_equal(loaded["a column."](texts), reader(texts))


def test_a_missing_or_damaged_file_is_refused(reader, tmp_path):
    with pytest.raises(InputNotFoundError):
        load_readers(tmp_path, ["a"])
    save_readers(tmp_path, {"a": reader})
    (tmp_path / FILE).write_bytes(b"\x08" + bytes(30))
    with pytest.raises(DataError):
        load_readers(tmp_path, ["a"])


def test_a_link_or_a_file_that_is_too_large_is_not_read(reader, tmp_path):
    save_readers(tmp_path, {"a": reader})
    path = tmp_path / FILE
    with path.open("r+b") as file:
        file.truncate(2**36)  # It takes no space on the disk.
    with pytest.raises(DataError, match="larger than"):
        load_readers(tmp_path, ["a"])
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="regular"):
        load_readers(tmp_path, ["a"])


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("slots", lambda array: array[::-1].copy()),
        ("slots", lambda array: array + 2**30),
        ("slots", lambda array: array.astype(np.int64)),
        ("rarity", lambda array: array[1:]),
        ("rarity", lambda array: array * np.float32(np.inf)),
        ("weight", lambda array: array[:, 1:].copy()),
        ("bias", lambda array: array[None]),
    ],
)
def test_arrays_that_do_not_fit_are_noticed(reader, tmp_path, field, change):
    save_readers(tmp_path, {"a": reader})
    arrays = load_file(tmp_path / FILE)
    arrays[f"{field}.a"] = change(arrays[f"{field}.a"])
    save_file(arrays, tmp_path / FILE)
    assert not is_consistent(load_readers(tmp_path, ["a"])["a"])
