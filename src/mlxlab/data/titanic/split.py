"""Which rows are trained on and which validate: stratified, disjoint, a pure function of the seed and the row's id."""

from typing import NamedTuple

import numpy as np

from mlxlab.data.rng import Stream, counter_hash
from mlxlab.data.titanic.passenger import Passenger
from mlxlab.data.titanic.sources import read_csv_source
from mlxlab.errors import ConfigError, DataError


class Split(NamedTuple):
    """Rows to train on, rows to validate on, and how they were parted."""

    train: list[Passenger]
    valid: list[Passenger]
    line: str
    digest: str  # of the file that the validation rows are from, else empty


def split_rows(
    rows: list[Passenger], valid_source: str | None, fraction: float, folds: int | None, fold: int, seed: int
) -> Split:
    """Validates on the rows of a file, else on fold `fold` of `folds`, else on a `fraction` of each class.

    Raises:
        ConfigError: there is no such fold, or a key that would have no effect.
        InputNotFoundError, DataError: `valid_source` is not sound or shares rows, or a class is too small to be parted.
    """
    if fold and folds is None:
        raise ConfigError(f"data.fold={fold} has no effect without data.folds")
    if folds is not None and fold >= folds:
        raise ConfigError(f"data.fold={fold} with data.folds={folds}, expected 0..{folds - 1}")
    if valid_source is not None:
        if folds is not None:
            raise ConfigError(f"data.folds={folds} has no effect with data.valid_source")
        return _from_file(rows, valid_source)
    ids = np.array([row.id for row in rows])
    labels = np.array([row.survived for row in rows])
    held = hold_out(ids, labels, fraction, seed) if folds is None else fold_numbers(ids, labels, folds, seed) == fold
    how = f"a stratified {fraction:g}" if folds is None else f"fold {fold} of {folds}"
    train = [row for row, is_held in zip(rows, held, strict=True) if not is_held]
    valid = [row for row, is_held in zip(rows, held, strict=True) if is_held]
    return Split(train, valid, f"{len(train)} rows to train on, {len(valid)} to validate on ({how}, seed {seed})", "")


def _from_file(rows: list[Passenger], path: str) -> Split:
    source = read_csv_source(path)
    valid = source.train
    shared = {row.id for row in rows} & {row.id for row in valid}
    if shared:
        raise DataError(f"{path}:1:1: {len(shared)} PassengerIds are training rows too, the least is {min(shared)}")
    return Split(rows, valid, f"{len(rows)} rows to train on, {len(valid)} to validate on ({path})", source.sha256)


def hold_out(ids: np.ndarray, labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """True for the rows that validate: `fraction` of each class, rounded, at least one and not all."""
    held = np.zeros(len(ids), bool)
    for rows in _shuffled_classes(ids, labels, seed, 2):
        held[rows[: min(max(1, round(len(rows) * fraction)), len(rows) - 1)]] = True
    return held


def fold_numbers(ids: np.ndarray, labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold 0..folds-1 of each row; classes are spread evenly, fold sizes differ by at most one."""
    numbers = np.empty(len(ids), np.int64)
    dealt = np.concatenate(_shuffled_classes(ids, labels, seed, folds))
    numbers[dealt] = np.arange(len(ids)) % folds  # class after class, without starting anew
    return numbers


def _shuffled_classes(ids: np.ndarray, labels: np.ndarray, seed: int, at_least: int) -> list[np.ndarray]:
    keys = counter_hash(seed, Stream.SPLIT, ids)
    classes = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if len(rows) < at_least:
            raise DataError(f"label {label} has {len(rows)} rows, expected at least {at_least} to split them")
        classes.append(rows[np.lexsort((ids[rows], keys[rows]))])
    return classes
