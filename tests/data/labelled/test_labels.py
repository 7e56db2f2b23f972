"""Labels: which task a column poses, its classes, what of it is refused, and what gives it away."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mlxlab.data.labelled.labels import (
    Labels,
    find_giveaways,
    fit_labels,
    label_kind,
    label_type,
    require_fitted,
)
from mlxlab.data.labelled.types import fit_type, read_column
from mlxlab.errors import ConfigError, DataError
from mlxlab.files.untrusted import ShapeError, validate


def location(row):
    return f"file.csv:{row + 2}"


def array(*cells):
    return pa.chunked_array([cells], pa.string())


def fit(*cells, task="auto", delimiter=None, positive=None, kind=None):
    options = {
        "target": "label",
        "kind": kind,
        "task": task,
        "label_delimiter": delimiter,
        "positive_class": positive,
    }
    column_type = label_type(array(*cells), options)
    unfitted = Labels("classification", column_type, delimiter=delimiter)
    column = unfitted.read("label", array(*cells), location)
    return fit_labels(column, options, replace(unfitted, kind=label_kind(column, options)))


def encode(labels, *cells):
    column = labels.read("label", array(*cells), location)
    return labels.encode(column).of(np.arange(len(cells)))


@pytest.mark.parametrize(
    ("cells", "kind", "names"),
    [
        (["b", "a", "b"], "classification", ("a", "b")),
        (["10", "9", "9"], "classification", ("9", "10")),
        (["true", "False", "TRUE"], "classification", ("false", "true")),
        (["1.0", "0.0", "1"], "classification", ("0", "1")),
        ([str(2**53 + 1), str(2**53)], "classification", (str(2**53), str(2**53 + 1))),
        ([str(10**30 + 1), str(10**30)], "classification", (str(10**30), str(10**30 + 1))),
        (["01234", "1234", "0987"], "classification", ("1234", "01234", "0987")),
        (["1", "b", "a"], "classification", ("1", "a", "b")),
        (["1", "2.5"], "regression", ()),
        ([*map(str, range(51))], "regression", ()),
        (['["b", "a"]', "[]", '["c"]'], "multi_label", ("a", "b", "c")),
    ],
)
def test_auto_takes_the_task_from_the_labels(cells, kind, names):
    labels = fit(*cells)
    assert (labels.kind, labels.names) == (kind, names)


@pytest.mark.parametrize(
    ("cells", "settings", "message"),
    [
        (["a", "a"], {}, "expected 2 to 20,000 .* got 1"),
        (["1.5", "inf"], {"task": "regression"}, "got 'inf'"),
        (["1.5", "n/a"], {"task": "regression"}, "file.csv:3: column 'label': .* got 'n/a'"),
        (["1.5", "2.710,5"], {"task": "regression"}, "got '2.710,5'"),
        (["7", "7"], {"task": "regression"}, "standard deviation 0"),
        (["1e308", "-1e308"], {"task": "regression"}, "numbers that differ"),
        (["a b"], {"task": "multi_label"}, "expected a JSON list of labels"),
        (['["a", {}]', "[]"], {}, "expected a JSON list of labels"),
        (["", " "], {"task": "multi_label", "delimiter": "|"}, "expected 1 to 20,000 .* got 0"),
    ],
)
def test_labels_that_cannot_be_learned_are_refused_with_their_place(cells, settings, message):
    with pytest.raises(DataError, match=message):
        fit(*cells, **settings)


def restore(state):
    return validate(json.loads(json.dumps(state)), Labels)


def test_labels_are_restored_and_damaged_ones_refused():
    labels = fit("1.5", "2.5")
    assert restore(labels.state_dict()) == labels
    damages = (
        {"deviation": 0.0},
        {"names": ["a"]},
        {"kind": "classification", "names": ["a", "a"]},
        {"mean": 1e308, "deviation": 1e308},
        {"delimiter": ""},
        {"positive": 0},
        {"type": {"kind": "numbers"}},
    )
    for damage in damages:
        with pytest.raises(ShapeError):
            restore(labels.state_dict() | damage)
    with pytest.raises(DataError, match="expected a name"):
        require_fitted(replace(labels, kind="classification"), Path("data.json"))


def test_a_chosen_type_decides_how_labels_are_read():
    assert fit("1", "2.5", "1", kind="category").names == ("1", "2.5")
    assert fit("1", "2", "1", kind="number").kind == "regression"


def test_the_positive_class_is_one_of_two():
    assert fit("late", "on time", positive="late").task().positive_class == 0
    assert fit("0", "1", positive=0).positive == 0
    assert fit("True", "False", positive=False).positive == 0
    assert fit("a", "b").positive is None
    for cells, positive in ((["a", "b"], "c"), (["a", "b", "c"], "a"), (["1.5", "2.5"], "1.5")):
        with pytest.raises(ConfigError, match=r"data\.positive_class"):
            fit(*cells, positive=positive)


def column_of(name, cells):
    array = pa.array([None if cell is None else str(cell) for cell in cells], pa.string())
    return read_column(name, array, fit_type(array))


def test_a_column_that_gives_the_label_away_is_found():
    rng = np.random.default_rng(0)
    label = rng.integers(2, size=400)
    cells = {
        "noise": rng.normal(size=400),
        "copy": np.where(label, "late", "on time"),
        "id": range(400),
        "score": label + rng.random(400) / 2,
        "sex": np.where(rng.random(400) < 0.8, label, 1 - label),
        "constant": ["a"] * 400,
        "gaps": [1 if each else None for each in label],
        "names": [f"name {number}" for number in range(200)] * 2,
        "empty": [None] * 400,
    }
    columns = {name: column_of(name, each) for name, each in cells.items()}
    named = [line.split("'")[1] for line in find_giveaways(columns, label)]
    assert named == ["copy", "score", "gaps"]
    rare = np.zeros(400, np.int64)
    rare[0] = 1
    assert find_giveaways(columns, rare) == []
