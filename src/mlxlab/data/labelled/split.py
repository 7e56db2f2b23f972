"""Splits rows into training, validation and test rows."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, NamedTuple

import numpy as np

from mlxlab.data.rng import Stream, counter_hash
from mlxlab.errors import ConfigError, DataError
from mlxlab.wording import counted

_OVERLAP = re.compile(
    r"\b(\d[\d,]{,18}) (\w+) rows? (?:have|has) the same input as (\w+) rows, (.*)"
)
_LEFT_OUT = "left out, "
OnOverlap = Literal["warn", "drop", "error"]
NO_CODE = -1


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
            raise ConfigError(
                f"data.fold={self.fold} with data.folds={self.folds}, expected 0..{self.folds - 1}"
            )
        settings = {
            "folds": self.folds,
            "time_column": self.time_column,
            "group_column": self.group_column,
        }
        given = [f"data.{key}={value}" for key, value in settings.items() if value is not None]
        if self.has_valid_source and given and given[0] != f"data.group_column={self.group_column}":
            raise ConfigError(f"{given[0]} has no effect with data.valid_source")
        if self.time_column is not None and len(given) > 1:
            other = next(setting for setting in given if not setting.startswith("data.time_column"))
            raise ConfigError(
                f"data.time_column={self.time_column}: validates on the last rows; not with {other}"
            )


class Overlap(NamedTuple):
    """Rows of one split that have the same input as rows of another one; `left_out`: they are not used."""

    rows: int
    split: str
    other: str
    left_out: bool


def describe_overlap(overlap: Overlap, first: str, remaining: int) -> str:
    """A line for the log that `parse_overlap` reads; `first` is where the first of the rows stands."""
    rows, split, other, left_out = overlap
    have = f"{counted(rows, f'{split} row')} {'has' if rows == 1 else 'have'}"
    line = f"{have} the same input as {other} rows, the first at {first}"
    if not left_out:
        return f"{line}; data.on_overlap=drop leaves them out"
    return f"{line}; {_LEFT_OUT}{counted(remaining, f'{split} row')} remain{'s' * (remaining == 1)}"


def parse_overlap(line: str) -> Overlap | None:
    """What a line of `describe_overlap` says; None for another line."""
    if (match := _OVERLAP.search(line)) is None:
        return None
    rows, split, other, rest = match.groups()
    return Overlap(int(rows.replace(",", "")), split, other, f"; {_LEFT_OUT}" in rest)


class Split(NamedTuple):
    """Row numbers of each split, ascending, and how they were found."""

    train: np.ndarray
    valid: np.ndarray
    method: str


def split_rows(
    options: SplitOptions,
    strata: np.ndarray,
    groups: np.ndarray | None,
    times: np.ndarray | None,
    seed: int,
) -> Split:
    """Splits N rows; a function of row numbers and seed.

    Args:
        strata: (N,) classes that are spread evenly; all equal where there are none.
        groups: (N,) codes of groups that must not be divided; -1 is a group of its own.
        times: (N,) the later a row, the greater.

    Raises:
        DataError: a class, or the number of groups or times, is too small to be split.
    """
    count, folds, fraction = len(strata), options.folds, options.valid_fraction
    ids = np.arange(count)
    if times is not None:
        is_valid = _latest(times, fraction)
        return Split(
            np.flatnonzero(~is_valid),
            np.flatnonzero(is_valid),
            f"the last {fraction:g} by {options.time_column}",
        )
    if folds is None and groups is None:
        kind = "random" if (strata == strata[0]).all() else "stratified"
        is_valid, method = hold_out(ids, strata, fraction, seed), f"a {kind} {fraction:g}"
    elif groups is None:
        assert folds is not None
        is_valid, method = (
            fold_numbers(ids, strata, folds, seed) == options.fold,
            f"fold {options.fold} of {folds}",
        )
    else:
        parts = [fraction, 1 - fraction] if folds is None else [1 / folds] * folds
        is_valid = _assign_groups(groups, parts, seed) == options.fold
        part = f"{fraction:g}" if folds is None else f"fold {options.fold} of {folds}"
        method = f"{part} by {options.group_column}"
    return Split(np.flatnonzero(~is_valid), np.flatnonzero(is_valid), f"{method}, seed {seed}")


def hold_out(ids: np.ndarray, strata: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """(N,) True for validation rows: `fraction` of each class, rounded, at least one and not all."""
    is_valid = np.zeros(len(ids), bool)
    for rows in _shuffled_classes(ids, strata, seed):
        is_valid[rows[: min(max(1, round(len(rows) * fraction)), len(rows) - 1)]] = True
    return is_valid


def fold_numbers(ids: np.ndarray, strata: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold 0..folds-1 of each row; classes are spread evenly, fold sizes differ by at most one."""
    numbers = np.empty(len(ids), np.int64)
    shuffled = np.concatenate(_shuffled_classes(ids, strata, seed))
    numbers[shuffled] = np.arange(len(ids)) % folds  # round robin over all classes in turn
    return numbers


def check_class_sizes(strata: np.ndarray, min_rows: int) -> None:
    """Raises DataError for a class of fewer than `min_rows` rows."""
    classes, counts = np.unique(strata, return_counts=True)
    if (counts < min_rows).any():
        smallest = int(counts.argmin())
        rows = (
            f"{counted(int(counts[smallest]), 'row')}, expected at least {min_rows} to split them"
        )
        raise DataError(f"label {classes[smallest]} has {rows}")


def parse_times(values: Sequence[str], where: Callable[[int], str]) -> np.ndarray:
    """Finite numbers or ISO 8601 dates and times as float64; either all with an offset from UTC or none.

    Raises:
        DataError: a value is neither, or of the other kind; `where` is its place.
    """
    try:
        numbers = np.array([float(value) for value in values])
    except ValueError:
        return _parse_dates(values, where)
    if not np.isfinite(numbers).all():
        index = int(np.argmin(np.isfinite(numbers)))
        raise DataError(f"{where(index)}: expected a finite number, got {values[index][:40]!r}")
    return numbers


def _parse_dates(values: Sequence[str], where: Callable[[int], str]) -> np.ndarray:
    times: list[datetime] = []
    for index, value in enumerate(values):
        try:
            times.append(datetime.fromisoformat(value.strip()))
        except ValueError:
            expected = "a number or a date such as 2024-05-31"
            raise DataError(f"{where(index)}: expected {expected}, got {value[:40]!r}") from None
        if (times[-1].tzinfo is None) != (times[0].tzinfo is None):
            expected = "an offset from UTC in all times or in none"
            raise DataError(f"{where(index)}: expected {expected}, got {value[:40]!r}")
    return np.array([time.replace(tzinfo=time.tzinfo or UTC).timestamp() for time in times])


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
        raise DataError(
            f"data.time_column: expected different times to split by, got {times[0]:g} in almost all rows"
        )
    return is_valid


def _assign_groups(groups: np.ndarray, parts: list[float], seed: int) -> np.ndarray:
    """The part of each row: groups, in random order, go where the most rows are missing; about `parts` of the rows."""
    codes = np.where(groups == NO_CODE, groups.max() + 1 + np.arange(len(groups)), groups)
    names, codes, sizes = np.unique(codes, return_inverse=True, return_counts=True)
    if len(names) < len(parts):
        raise DataError(
            f"data.group_column: {len(names)} groups, expected at least {len(parts)} to split them"
        )
    keys = counter_hash(seed, Stream.SPLIT, np.arange(len(names)))
    part_of, missing, empty = (
        np.empty(len(names), np.int64),
        np.array(parts) * len(groups),
        set(range(len(parts))),
    )
    for left, group in zip(range(len(names), 0, -1), np.argsort(keys, kind="stable"), strict=True):
        part = min(empty) if left == len(empty) else int(missing.argmax())  # no part stays empty
        empty.discard(part)
        part_of[group] = part
        missing[part] -= sizes[group]
    return part_of[codes]
