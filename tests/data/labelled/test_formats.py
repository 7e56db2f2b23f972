"""The same rows are the same model inputs, whichever format a model was trained on and predicts from."""

import json
from functools import partial
from itertools import product

import numpy as np
import pandas as pd
import pytest

from mlxlab.data.labelled.dataset import LabelledDataset
from mlxlab.data.labelled.rows import Rows, open_rows
from mlxlab.data.sources.open import Reading
from mlxlab.inference.predict import to_table
from mlxlab.models.cells.inputs import CellInputs, restore_cells
from support.labelled import make_texts

COUNT = 60
BIG = 2**53
TRAINED = {  # column -> the values of its rows in turn
    "boolean": [True, False, True],
    "boolean_gaps": [True, None, False],
    "integer": [1, -2, 30, 4],
    "integer_gaps": [1, None, 30, 7, 12],
    "float": [1.5, -0.25, 1e-7, 2.5],
    "float_gaps": [0.1, None, 1e20],
    "whole_floats": [1.0, 2.0, 3.0],
    "date": pd.to_datetime(["2024-01-02", "2024-02-29", "1999-12-31"]).tolist(),
    "time": pd.to_datetime(["2024-01-02 03:04:05", None, "2024-02-29 23:59:59"]).tolist(),
    "zone": pd.to_datetime(["2024-01-02 03:04:05+02:00", None], utc=True).tolist(),
    "category": ["red", "green", None],
    "ward": [1, 2, 3],
    "zeros": ["01234", "00001", "99999"],
    "big": [BIG, BIG + 1, 2**63 - 1],
    "mixed": ["A1", "10115", "7"],
    "words": ["yes", "no", "not a number"],
    "nothing": [None],
}
TYPES = {"ward": "category"}
PREDICTED = TRAINED | {  # values and gaps that no training row has
    "integer": [None, 99, -2, 1],
    "category": ["red", "violet", None],
    "ward": [3, None, 9],
    "zeros": ["1234", "01234", None],
    "big": [BIG + 1, None, BIG],
    "whole_floats": [2.0, None, 7.5 + 0.5],
}
LABELS = [True, False, False]


def frame_of(values):
    """A DataFrame as pandas makes it: integers with gaps become floats, but for the big ones."""
    columns = {}
    for name, cells in {**values, "label": LABELS}.items():
        repeated = [cells[row % len(cells)] for row in range(COUNT)]
        has_gaps = any(cell is None for cell in repeated)
        dtype = None
        if has_gaps and name == "big":
            dtype = "Int64"
        elif has_gaps and name.startswith("boolean"):
            dtype = object
        columns[name] = pd.Series(repeated, dtype=dtype)
    return pd.DataFrame(columns)


def plain(value):
    """A value of a DataFrame as one of JSON."""
    if pd.isna(value):
        return None
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    return value.item() if isinstance(value, np.generic) else value


def write_json_lines(frame, path):
    rows = [{name: plain(value) for name, value in row.items()} for row in frame.to_dict("records")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


WRITERS = {
    "csv": lambda frame, path: frame.to_csv(path, index=False),
    "jsonl": write_json_lines,
    "parquet": lambda frame, path: frame.to_parquet(path),
}
FORMATS = [*WRITERS, "frame", "dicts"]


def rows_in(form, frame, folder):
    """The rows in a format: a file, the DataFrame, or dicts."""
    if form == "frame":
        return frame
    if form == "dicts":
        return frame.to_dict("records")
    path = folder / f"rows.{form}"
    WRITERS[form](frame, path)
    return str(path)


def table_in(form, frame, folder, columns):
    """The cells that prediction reads in a format."""
    rows = rows_in(form, frame, folder)
    if form in ("frame", "dicts"):
        return to_table(rows, columns)
    part = open_rows(rows, Reading(), folder / "cache", columns=columns)
    return Rows([part]).table(columns, np.arange(COUNT))


@pytest.fixture(scope="module")
def batches(tmp_path_factory):
    """The batch of the predicted rows for each format that was trained on, and each that is predicted from."""
    made = {}
    for trained in FORMATS:
        folder = tmp_path_factory.mktemp(trained)
        source = rows_in(trained, frame_of(TRAINED), folder)
        options = {"text_column": None, "types": TYPES, "baselines": False}
        make_texts(source, folder / "cache", **options).save(folder)
        encoder = LabelledDataset.restore_encoder(folder)
        columns = [*encoder.columns, "label"]
        for predicted in FORMATS:
            table = table_in(predicted, frame_of(PREDICTED), folder, columns)
            made[trained, predicted] = encoder.encode_rows(table)
    return made


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_rows_are_the_same_numbers_of_a_table(tmp_path, form):
    def cells(trained, predicted):
        folder = tmp_path / f"{trained}_{predicted}"
        folder.mkdir(exist_ok=True)
        read = partial(CellInputs, folds=4, embedder=None)
        options = {"text_column": None, "types": TYPES, "baselines": False, "read_cells": read}
        source = rows_in(trained, frame_of(TRAINED), folder)
        make_texts(source, folder / "cache", **options).save(folder)
        encoder = restore_cells(folder)
        columns = [*encoder.columns, "label"]
        batch = encoder.encode_rows(table_in(predicted, frame_of(PREDICTED), folder, columns))
        assert batch.tokens.dtype == np.float32
        return batch.tokens, batch.targets

    expected = cells("csv", "csv")
    for pair in (cells(form, "csv"), cells("csv", form)):
        np.testing.assert_array_equal(pair[0], expected[0])
        np.testing.assert_array_equal(pair[1], expected[1])


@pytest.mark.parametrize(("trained", "predicted"), [*product(FORMATS, FORMATS)])
def test_the_same_rows_are_the_same_model_inputs(batches, trained, predicted):
    batch = batches[trained, predicted]
    for field, expected in zip(batch[:5], batches["csv", "csv"], strict=False):
        np.testing.assert_array_equal(field, expected)
    assert batch.loss_weights.all()
