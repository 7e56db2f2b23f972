"""Splits rows into training, validation and test rows."""

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa

from mlxlab.data.labelled.types import (
    Kind,
    Location,
    amount,
    distinct_texts,
    fit_kind,
    is_number,
    read_column,
)
from mlxlab.data.rng import Stream, counter_hash
from mlxlab.errors import ConfigError, DataError
from mlxlab.wording import counted

OVERLAP = re.compile(
    r"\b(\d[\d,]{,18}) (\w+) rows? (?:have|has) the same input as (\w+) rows, (.*)"
)
LEFT_OUT = "left out, "
OnOverlap = Literal["warn", "drop", "error"]
NO_GROUP = -1


@dataclass(frozen=True)
class SplitOptions:
    """How the rows of `data.source` are split; see the data set for the meaning of each."""

    valid_fraction: float
    folds: int | None
    fold: int
    has_valid_source: bool
    group_column: str | None
    time_column: str | None

    def __post_init__(self) -> None:
        if self.fold and self.folds is None:
            raise ConfigError(f"data.fold={self.fold} has no effect without data.folds")
        if self.folds is not None and self.fold >= self.folds:
            expected = f"data.folds={self.folds}, expected 0..{self.folds - 1}"
            raise ConfigError(f"data.fold={self.fold} with {expected}")
        if self.has_valid_source:
            self._refuse("data.valid_source", folds=self.folds, time_column=self.time_column)
        if self.time_column is not None:
            keys = {"folds": self.folds, "group_column": self.group_column}
            self._refuse(f"data.time_column={self.time_column}", **keys)

    @property
    def is_free(self) -> bool:
        """Whether any row may be on either side."""
        return self.group_column is None and self.time_column is None

    def _refuse(self, other: str, **keys: object) -> None:
        """Raises ConfigError for a key that has no effect with another one."""
        for key, value in keys.items():
            if value is not None:
                raise ConfigError(f"data.{key}={value} has no effect with {other}")


class Overlap(NamedTuple):
    """Rows of one split that have the same input as rows of another one; `left_out`: they are not used."""

    rows: int
    split: str
    other: str
    left_out: bool


def describe_overlap(overlap: Overlap, first: str, remaining: int) -> str:
    """A line for the log that `parse_overlap` reads; `first` is where the first of the rows stands."""
    have = "has" if overlap.rows == 1 else "have"
    rows = counted(overlap.rows, f"{overlap.split} row")
    line = f"{rows} {have} the same input as {overlap.other} rows, the first at {first}"
    if not overlap.left_out:
        return f"{line}; data.on_overlap=drop leaves them out"
    remain = "remains" if remaining == 1 else "remain"
    return f"{line}; {LEFT_OUT}{counted(remaining, f'{overlap.split} row')} {remain}"


def parse_overlap(line: str) -> Overlap | None:
    """What a line of `describe_overlap` says; None for another line."""
    match = OVERLAP.search(line)
    if match is None:
        return None
    rows, split, other, rest = match.groups()
    return Overlap(int(rows.replace(",", "")), split, other, f"; {LEFT_OUT}" in rest)


class Split(NamedTuple):
    """Row numbers of each split, ascending, and how they were found."""

    train: np.ndarray
    valid: np.ndarray
    method: str


def split_rows(
    options: SplitOptions,
    ids: np.ndarray,
    strata: np.ndarray,
    groups: np.ndarray | None,
    times: np.ndarray | None,
    seed: int,
) -> Split:
    """Splits N rows; without groups or times a function of ids, classes and seed.

    Args:
        ids: (N,) what the rows are called.
        strata: (N,) classes that are spread evenly; all equal where there are none.
        groups: (N,) codes of groups that must not be divided; -1 is a group of its own.
        times: (N,) the later a row, the greater.

    Raises:
        DataError: a class, or the number of groups or times, is too small to be split.
    """
    fraction = options.valid_fraction
    if times is not None:
        method = f"the last {fraction:g} by {options.time_column}"
        return _split(_latest(times, fraction), method)
    share = f"{fraction:g}"
    if options.folds is not None:
        share = f"fold {options.fold} of {options.folds}"
    if groups is not None:
        parts = [fraction, 1 - fraction]
        if options.folds is not None:
            parts = [1 / options.folds] * options.folds
        is_valid = _assign_groups(groups, parts, seed) == options.fold
        method = f"{share} by {options.group_column}"
    elif options.folds is not None:
        is_valid = fold_numbers(ids, strata, options.folds, seed) == options.fold
        method = share
    else:
        is_valid = hold_out(ids, strata, fraction, seed)
        kind = "random" if (strata == strata[0]).all() else "stratified"
        method = f"a {kind} {share}"
    return _split(is_valid, f"{method}, seed {seed}")


def _split(is_valid: np.ndarray, method: str) -> Split:
    return Split(np.flatnonzero(~is_valid), np.flatnonzero(is_valid), method)


def hold_out(ids: np.ndarray, strata: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """(N,) True for validation rows: `fraction` of each class, rounded, at least one and not all."""
    is_valid = np.zeros(len(ids), bool)
    for rows in _shuffled_classes(ids, strata, seed):
        count = max(1, round(len(rows) * fraction))
        is_valid[rows[: min(count, len(rows) - 1)]] = True
    return is_valid


def fold_numbers(ids: np.ndarray, strata: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold 0..folds-1 of each row; classes are spread evenly, fold sizes differ by at most one."""
    numbers = np.empty(len(ids), np.int64)
    shuffled = np.concatenate(_shuffled_classes(ids, strata, seed))
    numbers[shuffled] = np.arange(len(ids)) % folds  # This goes round over all classes in turn.
    return numbers


def read_times(name: str, cells: pa.ChunkedArray, location: Location) -> np.ndarray:
    """(N,) numbers, or dates and times, as float64; DataError for a cell that is not of the type of the first one."""
    texts, _ = distinct_texts(cells)
    kind: Kind = "number" if all(map(is_number, texts[:1])) else "datetime"
    column = read_column(name, cells, fit_kind(kind, cells), location)
    times = np.array([amount(value) for value in column.values])
    return times[column.codes]


def _shuffled_classes(ids: np.ndarray, strata: np.ndarray, seed: int) -> list[np.ndarray]:
    """Indices of the rows of each class, each list in an order of its own."""
    keys = counter_hash(seed, Stream.SPLIT, ids)
    order = np.lexsort((ids, keys, strata))
    return np.split(order, np.flatnonzero(np.diff(strata[order])) + 1)


def _latest(times: np.ndarray, fraction: float) -> np.ndarray:
    """(N,) True for about `fraction` of the rows, those of the greatest times; equal times stay together."""
    count = min(max(1, round(len(times) * fraction)), len(times) - 1)
    is_valid = times >= np.sort(times)[len(times) - count]
    if is_valid.all():
        got = f"got {times[0]:g} in almost all rows"
        raise DataError(f"data.time_column: expected different times to split by, {got}")
    return is_valid


def _assign_groups(groups: np.ndarray, parts: list[float], seed: int) -> np.ndarray:
    """The part of each row: groups, in random order, go where the most rows are missing; about `parts` of the rows."""
    single = groups.max() + 1 + np.arange(len(groups))
    codes = np.where(groups == NO_GROUP, single, groups)
    names, codes, sizes = np.unique(codes, return_inverse=True, return_counts=True)
    if len(names) < len(parts):
        expected = f"expected at least {len(parts)} to split them"
        raise DataError(f"data.group_column: {len(names)} groups, {expected}")
    part_of = np.empty(len(names), np.int64)
    missing = np.array(parts) * len(groups)
    empty = set(range(len(parts)))
    order = np.argsort(counter_hash(seed, Stream.SPLIT, np.arange(len(names))), kind="stable")
    for number, group in enumerate(order):
        part = int(missing.argmax())
        if len(names) - number == len(empty):
            part = min(empty)  # No part stays empty.
        empty.discard(part)
        part_of[group] = part
        missing[part] -= sizes[group]
    return part_of[codes]
