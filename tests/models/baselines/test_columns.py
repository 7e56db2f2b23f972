"""Baselines of raw columns: numbers with gaps, categories that are new, every kind of task."""

import logging
from datetime import datetime, timedelta
from functools import partial
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from mlxlab.data.batch import Task
from mlxlab.data.dataset import BaselineInputs
from mlxlab.data.labelled.renderer import feature_columns
from mlxlab.data.labelled.types import fit_type
from mlxlab.models.baselines import columns, estimators, predict
from mlxlab.models.baselines.predict import predict_rows

ROWS = 240
SPLIT = np.arange(150), np.arange(150, 220), np.arange(220, ROWS)


def new_table():
    """Rows with two numbers and a category; some cells are missing, and one category is new after the training rows."""
    generator = np.random.default_rng(0)
    width, weight = generator.normal(size=(2, ROWS))
    colour = generator.choice(["red", "green", "blue"], size=ROWS)
    table = {
        "width": [repr(float(x)) for x in width],
        "weight": [*map(repr, weight.tolist())],
        "colour": colour.tolist(),
    }
    table["width"][3] = table["weight"][200] = table["colour"][5] = table["colour"][221] = None
    table["colour"][160] = "violet"
    return table, (width > 0).astype(np.int32), colour


TABLE, WIDE, COLOUR = new_table()
CLASSES, LABELS = (
    Task("classification", 2, ("thin", "wide")),
    Task("multi_label", 2, ("wide", "red")),
)


def fit(targets, task):
    def cells(rows):
        return {name: [column[row] for row in rows] for name, column in TABLE.items()}

    train = {name: pa.array(column[: len(SPLIT[0])], pa.string()) for name, column in TABLE.items()}
    types = {name: fit_type(cells) for name, cells in train.items()}
    data = SimpleNamespace(
        task=task,
        columns=list(TABLE),
        training_targets=targets[SPLIT[0]],
        cells=cells,
        baseline_inputs=BaselineInputs(partial(feature_columns, types=types)),
    )
    predictions = predict.predict_rows(data, lambda rows: cells(150 + rows), 70, 20)
    return {each.name: each for each in predictions}


def test_classes_are_predicted_from_numbers_and_categories():
    fitted = fit(WIDE, CLASSES)
    assert list(fitted) == ["majority", "logistic_regression", "gradient_boosting"]
    for name in ("logistic_regression", "gradient_boosting"):
        valid, test = fitted[name].valid, fitted[name].test
        assert (valid.shape, test.shape) == ((70, 2), (20, 2))
        assert np.mean(valid.argmax(axis=1) == WIDE[SPLIT[1]]) > 0.9
        np.testing.assert_allclose(valid.sum(axis=1), 1)


def test_numbers_are_predicted_in_the_units_of_the_data():
    values = 10 + 3 * WIDE
    mean, deviation = values[SPLIT[0]].mean(), values[SPLIT[0]].std()
    task = Task("regression", 1, target_mean=float(mean), target_deviation=float(deviation))
    fitted = fit(((values - mean) / deviation).astype(np.float32), task)
    assert list(fitted) == ["mean", "ridge_regression", "gradient_boosting"]
    np.testing.assert_allclose(fitted["mean"].test, np.full(20, mean), rtol=1e-5)
    errors = {name: np.abs(each.valid - values[SPLIT[1]]).mean() for name, each in fitted.items()}
    assert errors["gradient_boosting"] < errors["ridge_regression"] < errors["mean"]


@pytest.mark.parametrize(
    ("limit", "value", "line"),
    [
        ("MAX_ROWS", 100, "gradient_boosting: fitted on 100 of 150 training rows"),
        ("MAX_CELLS", 90, "fitted on 30 of 150 training rows"),
        ("MAX_TREE_OUTPUTS", 1, "gradient_boosting: skipped"),
    ],
)
def test_a_limit_that_is_reached_is_logged(monkeypatch, caplog, limit, value, line):
    monkeypatch.setattr(columns if limit in vars(columns) else estimators, limit, value)
    with caplog.at_level(logging.INFO):
        fit(WIDE, CLASSES)
    assert line in caplog.text


@pytest.mark.parametrize("format", ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S+02:00"])
def test_dates_are_numbers(monkeypatch, format):
    """Each date stands in one row: as categories they would say nothing of later rows."""
    days = np.random.default_rng(0).permutation(ROWS)
    start = datetime(2020, 1, 1)
    dates = [(start + timedelta(days=int(day))).strftime(format) for day in days]
    for name in list(TABLE):
        monkeypatch.delitem(TABLE, name)
    monkeypatch.setitem(TABLE, "sold", [None, *dates[1:]])
    late = (days > ROWS // 2).astype(np.int32)
    fitted = fit(late, CLASSES)
    for name in ("logistic_regression", "gradient_boosting"):
        assert np.mean(fitted[name].valid.argmax(axis=1) == late[SPLIT[1]]) > 0.95


def test_the_constant_is_the_frequencies_or_the_mean_in_the_units_of_the_data():
    def predicted(targets, task):
        data = SimpleNamespace(
            baseline_inputs=BaselineInputs(), training_targets=np.array(targets), task=task
        )
        [constant] = predict_rows(data, lambda rows: {"a": ["x"] * len(rows)}, 2, 1)
        return constant.name, constant.valid.tolist(), constant.test.tolist()

    shares = [0.25, 0, 0.75]
    task = Task("classification", 3, ("a", "b", "c"))
    assert predicted([0, 2, 2, 2], task) == ("majority", [shares] * 2, [shares])
    task = Task("multi_label", 2, ("a", "b"))
    assert predicted([[1.0, 0], [1, 1]], task) == ("majority", [[1, 0.5]] * 2, [[1, 0.5]])
    task = Task("regression", 1, target_mean=100, target_deviation=20)
    assert predicted([-1.0, 2], task) == ("mean", [110, 110], [110])
