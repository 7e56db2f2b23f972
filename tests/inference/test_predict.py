"""Predictions by task kind, in the units of the data, whatever the batch size; faults name the row."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import mlx.core as mx
import numpy as np
import pandas as pd
import pytest

from mlxlab.data.batch import Batch, Task
from mlxlab.data.labelled.rows import Rows, open_rows
from mlxlab.data.sources.open import Reading
from mlxlab.errors import DataError
from mlxlab.inference.model_signature import row_columns
from mlxlab.inference.predict import Predictions, predict_table, to_table
from mlxlab.inference.restore import RestoredModel, _read_thresholds
from support.labelled import make_texts, write_csv

TASKS = {
    "classification": Task("classification", 3, ("a", "b", "c")),
    "multi_label": Task("multi_label", 3, ("a", "b", "c")),
    "regression": Task("regression", 1, target_mean=10.0, target_deviation=2.0),
}
LOGITS = np.array([[2.0, 0.0, -1.0], [0.0, 0.3, 1.0], [-3.0, -2.0, -4.0]])


class NumberEncoder:
    """Rows with a column `x`: the number of the row of `LOGITS` that the model returns."""

    columns, label_column, label_cells, tokenizer = ("x",), "y", ("a", "b", "c"), None

    def __init__(self, task):
        self.task = task

    def encode_rows(self, table):
        for row, cell in enumerate(table["x"], 1):
            if cell is None:
                raise DataError(f"row {row}: column 'x': expected a number, got nothing")
        tokens = np.array([[int(cell)] for cell in table["x"]], np.int32)
        zeros = np.zeros(len(tokens), np.int32)
        return Batch(
            tokens, np.ones_like(tokens), zeros, zeros.astype(np.float32), zeros.astype(int)
        )


def restored(kind, thresholds=()):
    logits, task = mx.array(LOGITS), TASKS[kind]
    model = lambda tokens, _: logits[tokens[:, 0]][:, : task.num_classes]  # noqa: E731
    return RestoredModel(model, NumberEncoder(task), {}, None, Path(), tuple(thresholds))


TABLE = {"x": ["0", "1", "2"], "other": ["", "", ""]}


def test_each_kind_of_task_has_its_columns():
    """The most probable class, the labels that reach their own threshold, numbers in the units of the data."""
    columns = predict_table(restored("classification"), TABLE).columns()
    assert columns["label"] == ["a", "c", "b"]
    expected = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
    probabilities = [columns[f"probability_{name}"] for name in "abc"]
    np.testing.assert_allclose(probabilities, expected.T, rtol=1e-5)
    columns = predict_table(restored("multi_label", [0.5, 0.6, 0.01]), TABLE).columns()
    assert columns["labels"] == [["a", "c"], ["a", "c"], ["c"]]
    np.testing.assert_allclose(columns["probability_b"], 1 / (1 + np.exp(-LOGITS[:, 1])), rtol=1e-5)
    columns = predict_table(restored("regression"), TABLE).columns()
    np.testing.assert_allclose(columns["value"], LOGITS[:, 0] * 2 + 10, rtol=1e-6)


@pytest.mark.parametrize(("positive", "answers"), [(0, "aab"), (1, "bab")])
def test_a_threshold_decides_between_two_classes(positive, answers):
    task = Task("classification", 2, ("a", "b"), positive_class=positive)
    values = np.array([[0.4, 0.6], [0.9, 0.1], [0.1, 0.9]])
    columns = Predictions(task, values, (0.3,)).columns()
    assert columns["label"] == list(answers)
    assert columns["probability_b"] == [0.6, 0.1, 0.9]


@pytest.mark.parametrize("kind", TASKS)
def test_the_batch_size_changes_nothing(kind):
    many, one = (predict_table(restored(kind, [0.5] * 3), TABLE, size).values for size in (64, 1))
    np.testing.assert_array_equal(many, one)
    assert len(predict_table(restored(kind, [0.5] * 3), {"x": []}).values) == 0


def test_a_fault_names_the_row_or_its_location():
    model, table = restored("regression"), {"x": ["0", "1", None]}
    with pytest.raises(DataError, match=r"^row 3: column 'x'"):
        predict_table(model, table, 2)
    with pytest.raises(DataError, match=r"^rows\.csv:4: column 'x'"):
        predict_table(model, table, 2, lambda row: f"rows.csv:{row + 2}")


def test_thresholds_are_those_of_the_run(tmp_path):
    task = TASKS["multi_label"]
    assert _read_thresholds(tmp_path, task) == (0.5,) * 3
    (tmp_path / "thresholds.json").write_text(json.dumps({"b": 0.25}))
    assert _read_thresholds(tmp_path, task) == (0.5, 0.25, 0.5)
    assert not len(_read_thresholds(tmp_path, TASKS["classification"]))
    two = Task("classification", 2, ("a", "b"))
    assert _read_thresholds(tmp_path, two) == (0.25,)
    (tmp_path / "thresholds.json").unlink()
    assert not len(_read_thresholds(tmp_path, two))
    for wrong in ({"z": 0.5}, {"a": 2.0}, {"a": "x"}, [0.5]):
        (tmp_path / "thresholds.json").write_text(json.dumps(wrong))
        with pytest.raises(DataError, match=r"thresholds\.json"):
            _read_thresholds(tmp_path, task)


def test_the_schema_has_the_types_of_the_columns(tmp_path):
    types = {"age": "number", "count": "integer", "name": "text", "port": "category"}
    types |= {"born": "datetime", "alive": "boolean"}
    rows = [
        {
            "age": n + 0.5,
            "count": n if n % 5 else None,
            "name": f"person {n}",
            "port": "SC"[n % 2],
            "born": f"19{n:02}-01-02",
            "alive": n % 2 == 0,
            "label": "ab"[n % 2],
        }
        for n in range(10, 50)
    ]
    source = write_csv(tmp_path / "people.csv", rows)
    data = make_texts(source, tmp_path, text_column=None, types=types)
    signature = json.loads(row_columns(data.encoder))
    kinds = ["double", "long", "string", "string", "any", "any"]
    assert [each["type"] for each in signature] == kinds
    assert [each["name"] for each in signature] == [*types]


def test_typed_values_are_written_as_from_a_parquet_file(tmp_path):
    values = {
        "at": [datetime(2020, 1, 2, 3, 4, 5, 500_000), datetime(2021, 1, 1)],
        "zone": [datetime(2020, 1, 2, 3, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC)],
        "day": [date(2020, 1, 2), date(2021, 1, 1)],
        "raw": [b"caf\xc3\xa9", b"x"],
        "price": [Decimal("1.50"), Decimal("2.00")],
        "half": np.array([0.1, 2.5], np.float32),
        "list": [[1, 2], [3]],
        "fits": [True, False],
    }
    frame, names = pd.DataFrame(values), list(values)
    frame.to_parquet(tmp_path / "rows.parquet")
    part = open_rows(str(tmp_path / "rows.parquet"), Reading(), tmp_path / "cache")
    expected = Rows([part]).table(names, np.arange(2))
    assert to_table(frame, names) == expected
    rows = [dict(zip(names, row, strict=True)) for row in zip(*values.values(), strict=True)]
    assert to_table(rows, names) == expected
    numpy_lists = [{"list": [np.int64(1), np.int64(2)]}, {"list": np.array([3])}]
    assert to_table(numpy_lists, ["list"]) == {"list": expected["list"]}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"\xff", "row 2: column 'x': .*decode"),
        ("\ud800", "row 2: column 'x': a lone surrogate"),
        (pd.Timedelta(1), "row 2: column 'x': a value of type Timedelta"),
    ],
)
def test_a_value_that_cannot_stand_in_a_cell_is_refused_where_it_is_read(value, message):
    frame = pd.DataFrame({"x": pd.Series(["a", value], dtype=object)})
    for rows in (frame, [{"x": "a"}, {"x": value}]):
        with pytest.raises(DataError, match=message):
            to_table(rows, ["x"])
        with pytest.raises(DataError, match="no column 'y'"):
            to_table(rows, ["y"])
