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
from mlxlab.errors import DataError, NotAllowedError
from mlxlab.inference.model_signature import model_signature, row_columns
from mlxlab.inference.predict import Predictions, predict_table, row_encoder, to_table
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
        zeros = np.zeros(len(tokens))
        return Batch(
            tokens,
            np.ones_like(tokens),
            zeros.astype(np.int32),
            zeros.astype(np.float32),
            zeros.astype(int),
        )


def restored(kind, thresholds=()):
    logits, task = mx.array(LOGITS), TASKS[kind]
    model = lambda tokens, _: logits[tokens[:, 0]][:, : task.num_classes]  # noqa: E731
    return RestoredModel(model, NumberEncoder(task), {}, None, Path(), tuple(thresholds))  # type: ignore[arg-type]


TABLE = {"x": ["0", "1", "2"], "other": ["", "", ""]}


def test_a_class_is_the_most_probable_one():
    columns = predict_table(restored("classification"), TABLE).columns()
    assert columns["label"] == ["a", "c", "b"]
    expected = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        [columns[f"probability_{name}"] for name in "abc"], expected.T, rtol=1e-5
    )


def test_labels_hold_from_their_own_threshold_on():
    columns = predict_table(restored("multi_label", [0.5, 0.6, 0.01]), TABLE).columns()
    assert columns["labels"] == [["a", "c"], ["a", "c"], ["c"]]
    np.testing.assert_allclose(columns["probability_b"], 1 / (1 + np.exp(-LOGITS[:, 1])), rtol=1e-5)


@pytest.mark.parametrize(("positive", "answers"), [(0, "aab"), (1, "bab")])
def test_a_threshold_decides_between_two_classes(positive, answers):
    task = Task("classification", 2, ("a", "b"), positive_class=positive)
    values = np.array([[0.4, 0.6], [0.9, 0.1], [0.1, 0.9]])
    columns = Predictions(task, values, (0.3,)).columns()
    assert columns["label"] == list(answers)
    assert columns["probability_b"] == [0.6, 0.1, 0.9]


def test_a_regression_answers_in_the_units_of_the_data():
    columns = predict_table(restored("regression"), TABLE).columns()
    np.testing.assert_allclose(columns["value"], LOGITS[:, 0] * 2 + 10, rtol=1e-6)


@pytest.mark.parametrize("kind", TASKS)
def test_the_batch_size_changes_nothing(kind):
    many, one = (predict_table(restored(kind, [0.5] * 3), TABLE, size).values for size in (64, 1))
    np.testing.assert_array_equal(many, one)
    assert len(predict_table(restored(kind, [0.5] * 3), {"x": []}).values) == 0


def test_a_fault_names_the_row_or_its_location():
    table = {"x": ["0", "1", None]}
    with pytest.raises(DataError, match=r"^row 3: column 'x'"):
        predict_table(restored("regression"), table, 2)
    with pytest.raises(DataError, match=r"^rows\.csv:9: column 'x'"):
        predict_table(
            restored("regression"), table, 2, ["rows.csv:2", "rows.csv:5", "rows.csv:9"].__getitem__
        )


def test_a_language_model_is_refused():
    text = restored("regression")
    object.__setattr__(
        text, "encoder", type("Encoder", (), {"task": Task("language_modelling", 9)})()
    )
    with pytest.raises(NotAllowedError, match="a language model predicts no labels"):
        predict_table(text, TABLE)


def test_labelled_data_whose_encoder_reads_no_rows_has_no_signature():
    encoder = type("Encoder", (), {"task": TASKS["classification"], "tokenizer": None})()
    assert model_signature(encoder) is None
    with pytest.raises(NotAllowedError, match=r"encoder is a mlxlab\.data\.dataset\.RowEncoder"):
        row_encoder(encoder)


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
    columns = {"age": "number", "count": "integer", "rank": "integer", "name": "text"}
    columns |= {"port": "category", "class": "category", "born": "datetime", "alive": "boolean"}
    rows = [
        {
            "age": number + 0.5,
            "count": number,
            "rank": number if number % 5 else None,
            "name": f"person {number}",
            "port": "SC"[number % 2],
            "class": number % 3,
            "born": f"19{number:02}-01-02",
            "alive": number % 2 == 0,
            "label": "ab"[number % 2],
        }
        for number in range(10, 50)
    ]
    source = write_csv(tmp_path / "people.csv", rows)
    data = make_texts(source, tmp_path, text_column=None, types=columns)
    signature = json.loads(row_columns(data.encoder))
    assert {each["name"]: each["type"] for each in signature} == {
        "age": "double",
        "count": "long",
        "rank": "long",
        "name": "string",
        "port": "string",
        "class": "any",
        "born": "any",
        "alive": "any",
    }


def test_the_signature_lists_columns_and_outputs():
    for kind, outputs in {
        "classification": {"label": "string", "probability_a": "double"},
        "multi_label": {"labels": "any", "probability_a": "double"},
        "regression": {"value": "double"},
    }.items():
        signature = {
            side: json.loads(columns)
            for side, columns in model_signature(NumberEncoder(TASKS[kind])).items()
        }
        assert signature["inputs"] == [{"type": "any", "name": "x", "required": True}]
        assert (
            outputs.items()
            <= {column["name"]: column["type"] for column in signature["outputs"]}.items()
        )


def test_values_are_written_as_in_a_file():
    row = {"a": 1, "b": 0.1, "c": True, "d": None, "e": float("nan"), "f": "x"}
    row |= {"g": np.float32(0.1), "h": ["p", 2]}
    table = to_table([row], list(row))
    cells = [cell for [cell] in table.values()]
    assert cells == ["1", "0.1", "true", None, None, "x", "0.1", json.dumps(["p", 2])]


def test_a_data_frame_gives_the_cells_of_its_dicts():
    rows = [
        {"n": 3, "x": 1.5, "t": "a", "y": True},
        {"n": 4, "x": float("nan"), "t": None, "y": False},
    ]
    assert to_table(pd.DataFrame(rows), list(rows[0])) == to_table(rows, list(rows[0]))


def test_integers_that_pandas_made_floats_are_integers():
    frame = pd.DataFrame({"n": [3, None], "x": [3.0, 4.5], "all": pd.array([1, None], "Int64")})
    assert to_table(frame, ["n", "x", "all"]) == {
        "n": ["3", None],
        "x": ["3", "4.5"],
        "all": ["1", None],
    }


def test_texts_are_the_rows_of_a_model_that_reads_one_column():
    assert to_table(["a", "b"], ["text"]) == {"text": ["a", "b"]}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a text", "put it into a list"),
        (["a"], "row 1: expected a dict with x, y, got str"),
        ([{"x": 1}, 3], "row 2: expected a dict"),
    ],
)
def test_anything_else_is_refused(rows, message):
    with pytest.raises(DataError, match=message):
        to_table(rows, ["x", "y"])


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
    frame = pd.DataFrame(values)
    frame.to_parquet(tmp_path / "rows.parquet")
    rows = Rows([open_rows(str(tmp_path / "rows.parquet"), Reading(), tmp_path / "cache")])
    expected = rows.table(list(values), np.arange(2))
    assert to_table(frame, list(values)) == expected
    assert (
        to_table(
            [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)],
            list(values),
        )
        == expected
    )
    numpy_lists = [{"list": [np.int64(1), np.int64(2)]}, {"list": np.array([3])}]
    assert to_table(numpy_lists, ["list"]) == {"list": expected["list"]}


def test_words_that_the_run_counts_as_missing_are_missing():
    assert to_table(["a", "NA", ""], ["text"], ["NA", ""]) == {"text": ["a", None, None]}
    assert to_table(pd.DataFrame({"x": ["?", "b"]}), ["x"], ["?"]) == {"x": [None, "b"]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a", b"\xff"], "row 2: column 'x': .*decode"),
        (["a", "\ud800"], "row 2: column 'x': a lone surrogate"),
        (["a", pd.Timedelta(1)], "row 2: column 'x': a value of type Timedelta"),
    ],
)
def test_a_value_that_cannot_stand_in_a_cell_is_refused_where_it_is_read(values, message):
    for rows in (
        pd.DataFrame({"x": pd.Series(values, dtype=object)}),
        [{"x": value} for value in values],
    ):
        with pytest.raises(DataError, match=message):
            to_table(rows, ["x"])
        with pytest.raises(DataError, match="no column 'y'"):
            to_table(rows, ["y"])


def test_two_columns_of_one_name_are_refused():
    with pytest.raises(DataError, match="column 'x' occurs twice"):
        to_table(pd.DataFrame([[1, 2]], columns=["x", "x"]), ["x"])
