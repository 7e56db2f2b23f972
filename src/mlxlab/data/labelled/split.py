"""Splits rows into training and validation rows."""

import numpy as np
import pyarrow as pa

from mlxlab.data.labelled.types import (
    Kind,
    Location,
    distinct_texts,
    fit_type,
    is_number,
    read_column,
)
from mlxlab.data.rng import Stream, counter_hash
from mlxlab.errors import DataError

NO_GROUP = -1


def hold_out(ids: np.ndarray, strata: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """(N,) True for validation rows: `fraction` of each class, rounded, at least one and not all."""
    is_valid = np.zeros(len(ids), bool)
    for rows in _shuffled_classes(ids, strata, seed, Stream.SPLIT):
        count = max(1, round(len(rows) * fraction))
        is_valid[rows[: min(count, len(rows) - 1)]] = True
    return is_valid


def fold_numbers(
    ids: np.ndarray, strata: np.ndarray, folds: int, seed: int, stream: Stream = Stream.SPLIT
) -> np.ndarray:
    """The fold 0..folds-1 of each row; classes are spread evenly, fold sizes differ by at most one."""
    numbers = np.empty(len(ids), np.int64)
    shuffled = np.concatenate(_shuffled_classes(ids, strata, seed, stream))
    numbers[shuffled] = np.arange(len(ids)) % folds  # This goes round over all classes in turn.
    return numbers


def read_times(name: str, cells: pa.ChunkedArray, location: Location) -> np.ndarray:
    """(N,) numbers, or dates and times, as float64; DataError for a cell that is not of the type of the first one."""
    texts, _ = distinct_texts(cells)
    kind: Kind = "number" if all(map(is_number, texts[:1])) else "datetime"
    return read_column(name, cells, fit_type(cells, kind), location).amounts()


def _shuffled_classes(
    ids: np.ndarray, strata: np.ndarray, seed: int, stream: Stream
) -> list[np.ndarray]:
    """Indices of the rows of each class, each list in an order of its own."""
    keys = counter_hash(seed, stream, ids)
    order = np.lexsort((ids, keys, strata))
    return np.split(order, np.flatnonzero(np.diff(strata[order])) + 1)


def latest(times: np.ndarray, fraction: float) -> np.ndarray:
    """(N,) True for about `fraction` of the rows, those of the greatest times; equal times stay together."""
    count = min(max(1, round(len(times) * fraction)), len(times) - 1)
    is_valid = times >= np.sort(times)[len(times) - count]
    if is_valid.all():
        raise DataError("data.time_column: expected different times, got one in almost all rows")
    return is_valid


def assign_groups(groups: np.ndarray, shares: list[float], seed: int) -> np.ndarray:
    """The part of each row: groups, in random order, go where the most rows are missing; about `shares` of the rows.

    Args:
        groups: (N,) codes of groups that must not be divided; -1 is a group of its own.
    """
    single = groups.max() + 1 + np.arange(len(groups))
    codes = np.where(groups == NO_GROUP, single, groups)
    _, codes, sizes = np.unique(codes, return_inverse=True, return_counts=True)
    count = len(shares)
    if len(sizes) < count:
        raise DataError(f"data.group_column: expected {count} groups, got {len(sizes)}")
    order = np.argsort(counter_hash(seed, Stream.SPLIT, np.arange(len(sizes))), kind="stable")
    # No part stays empty: each begins with one of the smallest groups.
    first = order[np.argsort(sizes[order], kind="stable")[:count]]
    part_of = np.empty(len(sizes), np.int64)
    part_of[first] = np.arange(count)
    missing = np.array(shares) * len(groups) - sizes[first]
    for group in order[~np.isin(order, first)]:
        part_of[group] = missing.argmax()
        missing[part_of[group]] -= sizes[group]
    return part_of[codes]
