"""The columns of a prediction file for each kind of task, and how its cells are written."""

import json

import numpy as np
import pytest

from mlxlab.data.batch import Task
from mlxlab.errors import DataError
from mlxlab.inference.predict import Predictions
from mlxlab.inference.prediction_file import PredictionFile, json_lines

LABELLED = Task("multi_label", 2, ("x;y", "z"))
SEVERAL = Predictions(LABELLED, np.array([[0.7, 0.9], [0.1, 0.2]], np.float32), (0.5, 0.5))
NUMBERS = Predictions(Task("regression", 1), np.array([0.1, 1e-9]), ())
TABLE = {"id": ["a", None], "value": ["1", "2"]}


class Encoder:
    label_column, label_cells = "target", LABELLED.labels


def lines(keep=(), form="full", delimiter=None, predictions=SEVERAL):
    encoder = Encoder()
    encoder.label_cells = predictions.task.labels
    file = PredictionFile(encoder, keep, form, delimiter)  # type: ignore[arg-type]
    columns = file.columns(TABLE, predictions, [65, 66])
    return file.csv_lines(columns, header=True).decode().splitlines(), json_lines(
        columns
    ).decode().splitlines()


def test_labels_are_a_list():
    table, objects = lines()
    assert table[0] == "row,labels,probability_x;y,probability_z"
    assert table[1:] == [
        '65,"[""x;y"", ""z""]",0.699999988,0.899999976',
        "66,[],0.100000001,0.200000003",
    ]
    first = json.loads(objects[0])
    assert first["labels"] == ["x;y", "z"]
    assert first["row"] == 65
    assert json.loads(lines(keep=("id",))[1][1])["id"] is None


KAGGLE = {"keep": ("id",), "form": "kaggle"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (KAGGLE | {"delimiter": "|"}, ["id,target", "a,x;y|z", ","]),
        ({"predictions": NUMBERS}, ["row,value", "65,0.1", "66,1e-09"]),
        (KAGGLE | {"predictions": NUMBERS}, ["id,target", "a,0.1", ",1e-09"]),
        (
            {"keep": ("value",), "predictions": NUMBERS},
            ["value,predicted_value", "1,0.1", "2,1e-09"],
        ),
    ],
)
def test_cells_of_labels_and_numbers_next_to_kept_columns(options, expected):
    assert lines(**options)[0] == expected


def test_a_column_that_the_input_lacks_is_named():
    with pytest.raises(DataError, match=r"^keep: no column 'id,value', "):
        lines(keep=("id,value",))
