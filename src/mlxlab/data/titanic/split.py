"""Splits rows into training and validation: stratified, disjoint, a pure function of the seed and the rows' ids."""

from typing import NamedTuple

import numpy as np

from mlxlab.data.rng import Stream, counter_hash
from mlxlab.data.titanic.passenger import Passenger
from mlxlab.data.titanic.sources import read_csv_source
from mlxlab.errors import ConfigError, DataError


class Split(NamedTuple):
    """Training and validation rows, and how they were split: `digest` is the SHA-256 of a validation file."""

    train: list[Passenger]
    valid: list[Passenger]
    method: str
    digest: str = ""

    @property
    def description(self) -> str:
        return f"{len(self.train)} training rows, {len(self.valid)} validation rows ({self.method})"


def split_rows(
    rows: list[Passenger], valid_source: str | None, fraction: float, folds: int | None, fold: int, seed: int
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
            duplicates = f"{len(shared)} PassengerIds are training rows too, the smallest is {min(shared)}"
            raise DataError(f"{valid_source}:1:1: {duplicates}")
        return Split(rows, source.train, valid_source, source.sha256)
    ids, labels = np.array([row.id for row in rows]), np.array([row.survived for row in rows])
    if folds is None:
        is_valid, method = hold_out(ids, labels, fraction, seed), f"a stratified {fraction:g}"
    else:
        is_valid, method = fold_numbers(ids, labels, folds, seed) == fold, f"fold {fold} of {folds}"
    train, valid = ([rows[i] for i in np.flatnonzero(is_valid == held_out)] for held_out in (False, True))
    return Split(train, valid, f"{method}, seed {seed}")


def hold_out(ids: np.ndarray, labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """(N,) True for validation rows: `fraction` of each class, rounded, at least one and not all."""
    is_valid = np.zeros(len(ids), bool)
    for rows in _shuffled_classes(ids, labels, seed, 2):
        is_valid[rows[: min(max(1, round(len(rows) * fraction)), len(rows) - 1)]] = True
    return is_valid


def fold_numbers(ids: np.ndarray, labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold 0..folds-1 of each row; classes are spread evenly, fold sizes differ by at most one."""
    numbers = np.empty(len(ids), np.int64)
    shuffled = np.concatenate(_shuffled_classes(ids, labels, seed, folds))
    numbers[shuffled] = np.arange(len(ids)) % folds  # round robin over all classes in turn
    return numbers


def _shuffled_classes(ids: np.ndarray, labels: np.ndarray, seed: int, min_rows: int) -> list[np.ndarray]:
    """Indices of the rows of each class."""
    keys, classes = counter_hash(seed, Stream.SPLIT, ids), []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if len(rows) < min_rows:
            raise DataError(f"label {label} has {len(rows)} rows, expected at least {min_rows} to split them")
        classes.append(rows[np.lexsort((ids[rows], keys[rows]))])
    return classes
