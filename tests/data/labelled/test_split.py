"""Splits: stratified, by folds, by groups and by time."""

import numpy as np
import pyarrow as pa
import pytest

from mlxlab.data.labelled.options import check_split
from mlxlab.data.labelled.split import assign_groups, latest, read_times
from mlxlab.data.labelled.types import number_of_row
from mlxlab.errors import ConfigError, DataError

SETTINGS = {"valid_source": None, "valid_fraction": 0.2, "folds": None, "fold": 0}
SETTINGS |= {"group_column": None, "time_column": None}


@pytest.mark.parametrize("shares", [[0.3, 0.7], [0.25] * 4])
def test_no_group_stands_on_both_sides(shares):
    groups = np.random.default_rng(0).integers(-1, 12, 200)
    is_valid = assign_groups(groups, shares, 1) == 0
    shared = np.intersect1d(groups[is_valid], groups[~is_valid])
    assert set(shared) <= {-1}  # rows without a group are alone
    assert is_valid.mean() == pytest.approx(shares[0], abs=0.08)


def test_the_latest_rows_validate_and_equal_times_stay_together():
    is_valid = latest(np.array([5.0, 1, 2, 5, 3, 5]), 0.2)
    assert np.flatnonzero(is_valid).tolist() == [0, 3, 5]


def times_of(*cells):
    return read_times("day", pa.chunked_array([cells], pa.string()), number_of_row)


def test_times_are_numbers_or_dates():
    assert times_of("2", "10").tolist() == [2, 10]
    days = times_of("2024-01-02", "2023-12-31", "2024-01-02T12:00")
    assert np.argsort(days).tolist() == [1, 0, 2]
    assert np.diff(times_of("2024-01-01T01:00+02:00", "2024-01-01T00:30+00:00")).tolist() == [5400]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["2024-01-02", "soon"], "row 2: column 'day': expected a date or time"),
        (["1", "NaN"], "row 2: column 'day': expected a finite number, got 'NaN'"),
    ],
)
def test_times_that_cannot_be_compared_are_refused_with_their_place(cells, message):
    with pytest.raises(DataError, match=message):
        times_of(*cells)


def test_rows_that_cannot_be_split_are_refused():
    with pytest.raises(DataError, match="groups"):
        assign_groups(np.zeros(4, int), [0.2, 0.8], 1)
    with pytest.raises(DataError, match="times"):
        latest(np.ones(4), 0.2)


@pytest.mark.parametrize(
    "settings",
    [
        {"fold": 1},
        {"folds": 3, "fold": 3},
        {"folds": 3, "valid_source": "valid.csv"},
        {"time_column": "t", "valid_source": "valid.csv"},
        {"time_column": "t", "folds": 3},
        {"time_column": "t", "group_column": "g"},
    ],
)
def test_keys_that_would_have_no_effect_are_refused(settings):
    with pytest.raises(ConfigError):
        check_split(SETTINGS | settings)
