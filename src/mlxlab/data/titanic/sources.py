"""Loads passengers, real or synthetic or of a CSV file, and splits them into training and validation.

`titanic.csv` in this folder holds the 1,309 rows of OpenML data set 40945 (Vanderbilt's `titanic3`, licence "Public")
in the order of their PassengerIds, without the columns `boat`, `body` and `home.dest`: they were recorded after the
sinking (of 486 passengers with a boat, 477 survived). See PROVENANCE.md.
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mlxlab.data.input_files import read_input_file
from mlxlab.data.labelled.split import check_class_sizes, fold_numbers, hold_out
from mlxlab.data.titanic.passenger import Passenger, parse_passengers
from mlxlab.errors import ConfigError, DataError
from mlxlab.wording import counted

FILE = Path(__file__).with_name("titanic.csv")
SHA256 = "1a46ed625b6cb809fbe02fed65ec9533ddc24dd4782efeb7c20209216c814ae5"
FIRST_TEST_ID = 892  # Kaggle's split: 1..891 for training, 892..1309 for a final report
LAST_TEST_ID = 1309
KAGGLE_SHA256 = {
    "4a437fde05fe5264e1701a7387ac6fb75393772ba38bb2c9c566405af5af4bd7": "Kaggle's train.csv",
    "5c78320a80dc159b35c408363be46a5d93f078183d539db75ee42a796d6a4e95": "Kaggle's test.csv",
}
SURNAMES = (
    "Ashdown",
    "Birch",
    "Calloway",
    "Dunmore",
    "Elling",
    "Fenwick",
    "Garrow",
    "Hale",
    "Inchbald",
    "Jessop",
)


class PassengerSource(NamedTuple):
    """Labelled passengers and their origin."""

    train: list[Passenger]  # for training and validation
    test: list[Passenger]  # for a final report only; empty unless these are the real rows
    name: str  # "titanic", or "titanic-synthetic" for synthetic rows
    sha256: str  # of the file, or of the synthetic rows
    description: list[str]  # lines for the log


def load_passengers(source: str | None) -> PassengerSource:
    """Passengers of a CSV file; None loads the real rows, "synthetic" generates some. Raises as `read_csv_source`."""
    if source == "synthetic":
        rows = synthetic_passengers(891)
        line = f"titanic: SYNTHETIC rows, {len(rows)} generated passengers, not the real Titanic (source=synthetic)"
        return PassengerSource(
            rows, [], "titanic-synthetic", hashlib.sha256(repr(rows).encode()).hexdigest(), [line]
        )
    return _real_passengers() if source is None else read_csv_source(source)


def load_test_passengers() -> list[Passenger]:
    """The 418 real test rows, for a final report only."""
    return _real_passengers().test


def read_csv_source(path: str) -> PassengerSource:
    """Labelled passengers of a user's CSV file."""
    data = read_input_file(path)
    rows = parse_passengers(data, path, labelled=True)
    sha256 = hashlib.sha256(data).hexdigest()
    known = KAGGLE_SHA256.get(sha256) or KAGGLE_SHA256.get(
        hashlib.sha256(data.replace(b"\r\n", b"\n")).hexdigest()
    )
    lines = [
        f"titanic: {len(rows):,} rows from {path}, sha256 {sha256[:12]} ({known or 'unknown checksum'})"
    ]
    num_test = sum(FIRST_TEST_ID <= row.id <= LAST_TEST_ID for row in rows)
    if num_test:
        rows_of = f"titanic: {counted(num_test, 'row')} of {path} with a PassengerId"
        lines.append(f"{rows_of} of the usual test set (892..1309)")
    return PassengerSource(rows, [], "titanic", sha256, lines)


def _real_passengers() -> PassengerSource:
    rows = _read_released_file(FILE)
    train = [row for row in rows if row.id < FIRST_TEST_ID]
    line = f"titanic: {len(rows):,} real rows, {len(train)} of them for training and validation"
    return PassengerSource(train, list(rows[len(train) :]), "titanic", SHA256, [line])


@cache  # for the jobs of a sweep
def _read_released_file(path: Path) -> tuple[Passenger, ...]:
    data = read_input_file(path)
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise DataError(
            f"{path}: the SHA-256 differs from that of the released file; reinstall mlxlab"
        )
    return tuple(parse_passengers(data, path, labelled=True))


def synthetic_passengers(count: int) -> list[Passenger]:
    """The same `count` passengers on every call; women and the upper classes survive more often."""
    rng = np.random.default_rng(1912)
    passengers = []
    for number in range(1, count + 1):
        female, pclass = bool(rng.random() < 0.35), int(rng.choice([1, 2, 3], p=[0.25, 0.2, 0.55]))
        probability = 1 / (1 + np.exp(-(2.6 * female - 0.9 * pclass + 0.4)))
        surname = SURNAMES[int(rng.integers(len(SURNAMES)))]
        passenger = Passenger(
            id=number,
            survived=int(rng.random() < probability),
            pclass=pclass,
            name=f"{surname}, {'Mrs' if female else 'Mr'}. Number {number}",
            sex="female" if female else "male",
            age=None if rng.random() < 0.2 else float(rng.integers(1, 75)),
            sibsp=int(rng.integers(0, 3)),
            parch=int(rng.integers(0, 3)),
            ticket=f"S {int(rng.integers(1000, 2000))}",
            fare=round(float(rng.gamma(2.0, 15.0 / pclass)), 2),
            cabin=None,
            embarked=str(rng.choice(["S", "C", "Q"])),
        )
        passengers.append(passenger)
    return passengers


class Split(NamedTuple):
    """Training and validation rows."""

    train: list[Passenger]
    valid: list[Passenger]
    method: str  # for the log
    digest: str = ""  # SHA-256 of a validation file


def split_rows(
    rows: list[Passenger],
    valid_source: str | None,
    fraction: float,
    folds: int | None,
    fold: int,
    seed: int,
) -> Split:
    """Validates on the rows of a file, else on fold `fold` of `folds`, else on a `fraction` of each class.

    Raises:
        ConfigError: `fold` is out of range, or a key would have no effect.
        InputNotFoundError, DataError: `valid_source` is malformed or shares rows, or a class is too small to be split.
    """
    if fold and folds is None:
        raise ConfigError(f"data.fold={fold} has no effect without data.folds")
    if folds is not None and fold >= folds:
        raise ConfigError(f"data.fold={fold} with data.folds={folds}, expected 0..{folds - 1}")
    if valid_source is not None:
        if folds is not None:
            raise ConfigError(f"data.folds={folds} has no effect with data.valid_source")
        source = read_csv_source(valid_source)
        if shared := {row.id for row in rows} & {row.id for row in source.train}:
            duplicates = (
                f"{len(shared)} PassengerIds are training rows too, the smallest is {min(shared)}"
            )
            raise DataError(f"{valid_source}:1:1: {duplicates}")
        return Split(rows, source.train, valid_source, source.sha256)
    ids, labels = np.array([row.id for row in rows]), np.array([row.survived for row in rows])
    check_class_sizes(labels, 2 if folds is None else folds)
    if folds is None:
        is_valid, method = hold_out(ids, labels, fraction, seed), f"a stratified {fraction:g}"
    else:
        is_valid, method = fold_numbers(ids, labels, folds, seed) == fold, f"fold {fold} of {folds}"
    train, valid = (
        [rows[i] for i in np.flatnonzero(is_valid == held_out)] for held_out in (False, True)
    )
    return Split(train, valid, f"{method}, seed {seed}")
