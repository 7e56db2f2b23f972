"""Splits: stratified, by folds, by groups and by time."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from mlxlab.data.labelled.options import check_split
from mlxlab.data.labelled.split import read_times, split_rows
from mlxlab.data.labelled.types import number_of_row
from mlxlab.errors import ConfigError, DataError


def options(fraction=0.2, folds=None, fold=0, has_valid_source=False, group=None, time=None):
    return {
        "valid_source": "valid.csv" if has_valid_source else None,
        "valid_fraction": fraction,
        "folds": folds,
        "fold": fold,
        "group_column": group,
        "time_column": time,
    }


def split(choice, strata, groups=None, times=None, seed=1):
    """Numbers of the training and of the validation rows."""
    ids = np.arange(len(strata))
    is_valid = split_rows(choice, ids, np.array(strata), groups, times, seed)
    return SimpleNamespace(train=np.flatnonzero(~is_valid), valid=np.flatnonzero(is_valid))


def test_a_fraction_of_each_class_validates():
    result = split(options(0.25), [0] * 80 + [1] * 20)
    assert len(result.valid) == 25
    assert (result.valid >= 80).sum() == 5
    assert sorted([*result.train, *result.valid]) == [*range(100)]


def test_a_class_of_one_row_trains():
    assert 3 in split(options(0.9), [0, 0, 0, 1]).train


def test_each_row_validates_in_one_fold():
    strata = [n % 3 for n in range(31)]
    folds = [split(options(folds=5, fold=fold), strata).valid for fold in range(5)]
    assert sorted(np.concatenate(folds)) == [*range(31)]
    assert {len(rows) for rows in folds} == {6, 7}


@pytest.mark.parametrize("choice", [options(0.3, group="g"), options(folds=4, fold=2, group="g")])
def test_no_group_stands_on_both_sides(choice):
    groups = np.random.default_rng(0).integers(-1, 12, 200)
    result = split(choice, [0] * 200, groups)
    shared = np.intersect1d(groups[result.train], groups[result.valid])
    assert set(shared) <= {-1}  # rows without a group are alone
    expected = 0.3 if choice["folds"] is None else 0.25
    assert len(result.valid) / 200 == pytest.approx(expected, abs=0.08)


def test_folds_of_groups_cover_every_row_once():
    groups = np.arange(40) // 4
    folds = [
        split(options(folds=5, fold=fold, group="g"), [0] * 40, groups).valid for fold in range(5)
    ]
    assert sorted(np.concatenate(folds)) == [*range(40)]
    assert all(len(rows) for rows in folds)


def test_two_groups_are_enough_for_two_sides():
    result = split(options(0.01, group="g"), [0] * 10, np.array([0] * 5 + [1] * 5))
    assert len(result.train) == len(result.valid) == 5


def test_the_latest_rows_validate_and_equal_times_stay_together():
    times = np.array([5.0, 1, 2, 5, 3, 5])
    assert split(options(0.2, time="t"), [0] * 6, times=times).valid.tolist() == [0, 3, 5]


def times_of(*cells):
    return read_times("day", pa.chunked_array([cells], pa.string()), number_of_row)


def test_times_are_numbers_or_dates():
    assert times_of("2", "10").tolist() == [2, 10]
    assert np.argsort(times_of("2024-01-02", "2023-12-31", "2024-01-02T12:00")).tolist() == [
        1,
        0,
        2,
    ]
    assert np.diff(times_of("2024-01-01T01:00+02:00", "2024-01-01T00:30+00:00")).tolist() == [5400]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["2024-01-02", "soon"], "row 2: column 'day': expected a date or time"),
        (["2024-01-02", "2024-01-02T00:00Z"], "row 2: column 'day': .* without a zone"),
        (["1", "NaN"], "row 2: column 'day': expected a finite number, got 'NaN'"),
    ],
)
def test_times_that_cannot_be_compared_are_refused_with_their_place(cells, message):
    with pytest.raises(DataError, match=message):
        times_of(*cells)


@pytest.mark.parametrize("fault", [{"groups": np.zeros(4, int)}, {"times": np.ones(4)}])
def test_rows_that_cannot_be_split_are_refused(fault):
    choice = options(group="g") if "groups" in fault else options(time="t")
    with pytest.raises(DataError):
        split(choice, [0] * 4, **fault)


@pytest.mark.parametrize(
    "settings",
    [
        {"fold": 1},
        {"folds": 3, "fold": 3},
        {"folds": 3, "has_valid_source": True},
        {"time": "t", "has_valid_source": True},
        {"time": "t", "folds": 3},
        {"time": "t", "group": "g"},
    ],
)
def test_keys_that_would_have_no_effect_are_refused(settings):
    with pytest.raises(ConfigError):
        check_split(options(**settings))
