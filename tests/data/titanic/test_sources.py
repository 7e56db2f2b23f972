"""Where passengers come from, and how they are split into training and validation rows."""

import csv
import gzip
import hashlib
import importlib.util
import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mlxlab.data.labelled.split import fold_numbers, hold_out
from mlxlab.data.titanic.dataset import TitanicDataset
from mlxlab.errors import ConfigError, DataError, InputNotFoundError
from support.titanic import csv_text, make_titanic, real_rows, table_of

ROWS = real_rows()
IDS = np.array([row.id for row in ROWS[:891]])
LABELS = np.array([row.survived for row in ROWS[:891]])
PASSENGER_ID_ORDER = (
    Path(__file__).parents[1] / "passenger_id_order.json"
)  # PassengerId of each row of OpenML's file


def read_openml_rows():
    """OpenML data set 40945 as it lies among the test data of scikit-learn."""
    folder = Path(importlib.util.find_spec("sklearn").origin).parent
    packed = folder / "datasets/tests/data/openml/id_40945/data-v1-dl-16826755.arff.gz"
    data = gzip.decompress(packed.read_bytes())
    assert (
        hashlib.sha256(data).hexdigest()
        == "c56e3785c96cd8aceac85f11bff21c2bf72841426f50903a6f27be8f334a7d03"
    )
    body = data.decode().split("@data", 1)[1].strip()
    return csv.reader(io.StringIO(body), escapechar="\\", doublequote=False, skipinitialspace=True)


def test_the_packaged_rows_are_those_of_openml():
    ids = json.loads(PASSENGER_ID_ORDER.read_text())
    for passenger_id, values in zip(ids, read_openml_rows(), strict=True):
        pclass, survived, name, sex, age, sibsp, parch, ticket, fare, cabin, embarked = (
            None if value == "?" else value.strip() for value in values[:11]
        )
        age, fare = (None if number is None else float(number) for number in (age, fare))
        expected = (
            int(survived),
            int(pclass),
            name,
            sex,
            age,
            int(sibsp),
            int(parch),
            ticket,
            fare,
            cabin,
            embarked,
        )
        assert ROWS[passenger_id - 1] == (passenger_id, *expected)


def ids_of(data):
    """The ids of the training and of the validation rows."""
    return [{ROWS[row].id for row in rows} for rows in (data.split.train, data.split.valid)]


def test_the_real_rows_have_the_usual_split(tmp_path):
    train, valid = ids_of(make_titanic(tmp_path))
    assert train | valid == set(range(1, 892))
    assert TitanicDataset.test_rows() == table_of(ROWS[891:])
    assert sum(row.survived for row in ROWS[:891]) == 342
    assert sum(row.survived for row in ROWS[891:]) == 158
    assert ROWS[0] == (
        1,
        0,
        3,
        "Braund, Mr. Owen Harris",
        "male",
        22.0,
        1,
        0,
        "A/5 21171",
        7.25,
        None,
        "S",
    )
    missing = Counter(
        name for row in ROWS for name, value in row._asdict().items() if value is None
    )
    assert missing == {"age": 263, "fare": 1, "cabin": 1014, "embarked": 2}


def test_columns_recorded_after_the_sinking_are_not_packaged():
    assert not {"boat", "body", "home.dest"} & set(ROWS[0]._fields)
    assert not any("St Louis" in str(value) for row in ROWS for value in row)


def test_a_file_of_passengers_without_a_column_is_no_other_data(tmp_path):
    path = tmp_path / "passengers.csv"
    path.write_text(csv_text(ROWS[:9]).replace("Age", "age", 1))
    with pytest.raises(DataError, match=r"no column 'Age'") as error:
        make_titanic(tmp_path, source=str(path))
    assert "data=table" not in str(error.value)


@pytest.mark.parametrize("cell", ["2", "", "-1", "x"])
def test_a_label_that_is_none_is_named_with_its_line(tmp_path, cell):
    path = tmp_path / "rows.csv"
    path.write_text(csv_text([*ROWS[:8], ROWS[8]._replace(survived=cell), *ROWS[9:50]]))
    with pytest.raises(DataError, match=r"rows.csv:10: column 'Survived': ") as caught:
        make_titanic(tmp_path, source=str(path))
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_named_file_is_never_replaced_by_other_rows(tmp_path):
    with pytest.raises(InputNotFoundError):
        make_titanic(tmp_path, source=str(tmp_path / "none.csv"))


def test_the_test_rows_cannot_be_trained_on(tmp_path):
    with pytest.raises(InputNotFoundError):
        make_titanic(tmp_path, source="test")


def test_synthetic_rows_are_labelled_as_such_everywhere(tmp_path):
    data = make_titanic(tmp_path, source="synthetic")
    assert data.rows.name == "titanic-synthetic"
    assert all("synthetic" in line for line in data.sources)


def test_synthetic_women_survive_more_often_than_men():
    rows = real_rows("synthetic.csv")
    women, men = ([row.survived for row in rows if row.sex == sex] for sex in ("female", "male"))
    assert np.mean(women) > np.mean(men) + 0.2


@pytest.mark.parametrize("seed", range(3))
def test_folds_partition_the_rows_and_are_stratified(seed):
    numbers = fold_numbers(IDS, LABELS, 5, seed)
    assert sorted(Counter(numbers.tolist()).values()) == [178, 178, 178, 178, 179]
    shares = [LABELS[numbers == fold].mean() for fold in range(5)]
    assert max(shares) - min(shares) < 0.01
    assert not np.array_equal(numbers, fold_numbers(IDS, LABELS, 5, seed + 1))


@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.2, 0.5, 0.999])
def test_a_held_out_part_is_stratified_and_leaves_both_classes_on_both_sides(fraction):
    held = hold_out(IDS, LABELS, fraction, 0)
    for label in (0, 1):
        count = (label == LABELS).sum()
        expected = min(max(1, round(count * fraction)), count - 1)
        assert held[label == LABELS].sum() == expected


def test_the_split_depends_on_ids_not_on_the_order_of_rows():
    turned = np.random.default_rng(0).permutation(891)
    np.testing.assert_array_equal(
        hold_out(IDS, LABELS, 0.2, 3)[turned], hold_out(IDS[turned], LABELS[turned], 0.2, 3)
    )
    np.testing.assert_array_equal(
        fold_numbers(IDS, LABELS, 5, 3)[turned], fold_numbers(IDS[turned], LABELS[turned], 5, 3)
    )


@pytest.mark.parametrize("folds", [None, 5])
def test_no_passenger_is_on_both_sides_and_none_is_of_the_test_set(tmp_path, folds):
    train, valid = ids_of(make_titanic(tmp_path, folds=folds))
    assert not train & valid
    assert train | valid == set(range(1, 892))


def test_validation_rows_may_come_from_a_file_but_not_be_training_rows(tmp_path):
    paths = {"valid_source": (800, 891), "source": (0, 800), "again": (0, 810)}
    for name, rows in paths.items():
        (tmp_path / f"{name}.csv").write_text(csv_text(ROWS[slice(*rows)]))
    valid = str(tmp_path / "valid_source.csv")
    data = make_titanic(tmp_path, source=str(tmp_path / "source.csv"), valid_source=valid)
    assert ids_of(data) == [set(range(1, 801)), set(range(801, 892))]
    with pytest.raises(DataError, match="a PassengerId occurs twice"):
        make_titanic(tmp_path, source=str(tmp_path / "again.csv"), valid_source=valid)


@pytest.mark.parametrize(
    ("folds", "fold", "valid_source"),
    [(None, 1, None), (5, 5, None), (2, 7, None), (5, 0, "valid.csv")],
)
def test_a_split_key_without_effect_is_refused(tmp_path, folds, fold, valid_source):
    with pytest.raises(ConfigError, match=r"data\.fold"):
        make_titanic(tmp_path, folds=folds, fold=fold, valid_source=valid_source)


@pytest.mark.parametrize("survivors", [0, 1, 10])
def test_a_class_too_small_to_be_split_is_refused(tmp_path, survivors):
    rows = [row._replace(survived=int(row.id <= survivors)) for row in ROWS[:10]]
    (tmp_path / "rows.csv").write_text(csv_text(rows))
    with pytest.raises(DataError, match=r"single row|expected 2 to"):
        make_titanic(tmp_path, source=str(tmp_path / "rows.csv"))
