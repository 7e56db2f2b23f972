"""Teachers that are no model of the run: a file of predictions, and what a mixture said of its training rows."""

import csv

import numpy as np
import pytest

from mlxlab.data.batch import Batch
from mlxlab.distillation.teachers import VALUES, HeldOutTargets, Teachers, load_predictions
from mlxlab.errors import DataError, NotAllowedError
from mlxlab.models.baselines.mixture import OutOfFold
from support.labelled import make_texts

COUNT = 40
RNG = np.random.default_rng(0)
GOOD = RNG.uniform(0.1, 0.9, COUNT).round(3)
AMOUNTS = RNG.normal(5, 2, COUNT).round(3)


def write(path, **columns):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


@pytest.fixture
def make(tmp_path):
    def make(target="label", **options):
        columns = {"text": [f"word{number} more" for number in range(COUNT)]}
        columns["label"] = ["good" if number % 3 else "bad" for number in range(COUNT)]
        columns["amount"] = AMOUNTS
        write(tmp_path / "rows.csv", **columns)
        source = str(tmp_path / "rows.csv")
        return make_texts(source, tmp_path / "cache", target=target, baselines=False, **options)

    return make


def columns_of(order):
    return {"probability_good": GOOD[order], "probability_bad": (1 - GOOD[order]).round(3)}


@pytest.mark.parametrize("has_numbers", [False, True])
def test_each_training_row_has_the_probabilities_of_its_row_of_the_source(
    make, tmp_path, has_numbers
):
    data = make()
    order = np.arange(COUNT)
    numbers = {}
    if has_numbers:
        order = np.flatnonzero(RNG.permutation(COUNT) + np.isin(order, data.split.train))
        order = RNG.permutation(order)
        numbers = {"row": order + 1}
    path = write(tmp_path / "forest.csv", **numbers, **columns_of(order))
    said = load_predictions(path, data, tmp_path / "cache")
    assert said.ids.tolist() == data.split.train.tolist()
    assert data.task.labels == ("bad", "good")
    np.testing.assert_allclose(said.outputs[:, 1], GOOD[data.split.train], rtol=1e-6)
    np.testing.assert_array_equal(said.targets, data.training_targets)


def test_numbers_are_standardised_as_the_targets(make, tmp_path):
    data = make(target="amount")
    path = write(tmp_path / "forest.csv", value=AMOUNTS)
    said = load_predictions(path, data, tmp_path / "cache")
    np.testing.assert_allclose(said.outputs[:, 0], data.training_targets, rtol=1e-5, atol=1e-6)


def with_rows(*numbers):
    return {"row": [*numbers, *range(len(numbers) + 1, COUNT + 1)]} | columns_of(np.arange(COUNT))


def with_bad(*cells, good=GOOD):
    return {"probability_good": good, "probability_bad": [*cells, *(1 - good[len(cells) :])]}


FAULTS = {
    "expected the 40 rows of": columns_of(np.arange(COUNT - 1)),
    "no column 'probability_bad'": {"probability_good": GOOD},
    "forest.csv:3: expected each number of a row once": with_rows(1, 1),
    "forest.csv:2: expected the number of a row": with_rows(0.5),
    "no prediction of row": {"row": np.arange(COUNT) + 2, **columns_of(np.arange(COUNT))},
    "forest.csv:2: expected probabilities that sum to 1": with_bad(*GOOD),
    "forest.csv:2: expected probabilities from 0 to 1": with_bad(*-GOOD, good=GOOD + 1),
    "forest.csv:2: expected a number in column 'probability_bad', got none": with_bad(""),
    "forest.csv:3: column 'probability_bad': expected a finite number": with_bad(
        1 - GOOD[0], "half"
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_does_not_fit_is_refused_in_one_line(make, tmp_path, fault):
    path = write(tmp_path / "forest.csv", **FAULTS[fault])
    with pytest.raises(DataError, match=fault) as error:
        load_predictions(path, make(), tmp_path / "cache")
    assert "\n" not in str(error.value)


def test_rows_that_are_left_out_as_malformed_have_no_number(make, tmp_path):
    make()
    rows = (tmp_path / "rows.csv").read_text().splitlines()
    rows[3] += ",more"
    bad, cache = tmp_path / "bad.csv", tmp_path / "cache"
    bad.write_text("\n".join(rows))
    data = make_texts(str(bad), cache, on_error="skip", max_left_out=0.5)
    path = write(tmp_path / "forest.csv", **columns_of(np.arange(COUNT)))
    with pytest.raises(NotAllowedError, match="none of them malformed"):
        load_predictions(path, data, cache)


def batch_of(ids, targets):
    ids = np.array(ids)
    cells = np.zeros((len(ids), 3), np.float32)
    return Batch(cells, np.ones((len(ids), 1)), np.array(targets), np.ones(len(ids)), ids)


@pytest.mark.parametrize("kind", ["classification", "multi_label", "regression"])
def test_the_rows_of_a_batch_are_found_by_their_ids(kind):
    outputs = np.array([[0.9], [0.2], [0.6]], np.float32)
    targets = np.array([1, 0, 1])
    if kind == "classification":
        outputs = np.concatenate([1 - outputs, outputs], axis=1)
    said = OutOfFold(np.array([30, 10, 20]), targets, outputs)
    teachers = Teachers(held_out=HeldOutTargets(said, kind))
    values = teachers.cached(batch_of([20, 30], [1, 1]), None)[VALUES]
    expected = outputs[[2, 0]]
    if kind == "classification":
        expected = np.log(expected)
    if kind == "multi_label":
        expected = np.log(expected / (1 - expected))
    np.testing.assert_allclose(values, expected, rtol=1e-4)

    # Rows with the id -1 fill up a batch.
    filled = teachers.cached(batch_of([20, 30, -1], [1, 1, 0]), None)[VALUES]
    np.testing.assert_allclose(filled[:2], expected, rtol=1e-4)
    held_out = teachers.held_out
    assert held_out.soft_targets(batch_of([20, 40], [1, 1])) == {}
    assert held_out.soft_targets(batch_of([20, 10], [1, 1])) == {}
    with pytest.raises(DataError, match="a prediction of each training row"):  # without a model
        teachers.cached(batch_of([20, 40], [1, 1]), None)


def test_a_number_far_from_all_others_is_refused(make, tmp_path):
    path = write(tmp_path / "forest.csv", value=[*AMOUNTS[:-1], 1e300])
    with pytest.raises(DataError, match=r"forest\.csv:41: expected a number near"):
        load_predictions(path, make(target="amount"), tmp_path / "cache")
