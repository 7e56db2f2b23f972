"""Splits rows into training and validation: stratified, disjoint, a pure function of the seed and the rows' ids."""

from typing import NamedTuple

import numpy as np

from mlxlab.data.rng import Stream, counter_hash
from mlxlab.data.titanic.passenger import Passenger
from mlxlab.data.titanic.sources import read_csv_source
from mlxlab.errors import ConfigError, DataError


class Split(NamedTuple):
    """Training and validation rows, and how they were split."""

    train: list[Passenger]
    valid: list[Passenger]
    description: str
    digest: str  # SHA-256 of the validation file, empty without one


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
        return _from_file(rows, valid_source)
    ids = np.array([row.id for row in rows])
    labels = np.array([row.survived for row in rows])
    is_valid = (
        hold_out(ids, labels, fraction, seed) if folds is None else fold_numbers(ids, labels, folds, seed) == fold
    )
    method = f"a stratified {fraction:g}" if folds is None else f"fold {fold} of {folds}"
    train = [row for row, valid in zip(rows, is_valid, strict=True) if not valid]
    valid = [row for row, valid in zip(rows, is_valid, strict=True) if valid]
    return Split(train, valid, f"{len(train)} training rows, {len(valid)} validation rows ({method}, seed {seed})", "")


def _from_file(rows: list[Passenger], path: str) -> Split:
    source = read_csv_source(path)
    valid = source.train
    shared = {row.id for row in rows} & {row.id for row in valid}
    if shared:
        raise DataError(f"{path}:1:1: {len(shared)} PassengerIds are training rows too, the smallest is {min(shared)}")
    return Split(rows, valid, f"{len(rows)} training rows, {len(valid)} validation rows ({path})", source.sha256)


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
    keys = counter_hash(seed, Stream.SPLIT, ids)
    classes = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if len(rows) < min_rows:
            raise DataError(f"label {label} has {len(rows)} rows, expected at least {min_rows} to split them")
        classes.append(rows[np.lexsort((ids[rows], keys[rows]))])
    return classes
