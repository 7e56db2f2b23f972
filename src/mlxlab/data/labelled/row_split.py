"""Prepares the rows of a labelled data set: leaves out what cannot be used, splits, and fits types and labels."""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlxlab.data.dataset import DROPPED, SAME_INPUT
from mlxlab.data.labelled.labels import (
    Labels,
    Targets,
    fit_labels,
    label_kind,
    label_type,
)
from mlxlab.data.labelled.left_out import Faults
from mlxlab.data.labelled.options import RowOptions
from mlxlab.data.labelled.rows import Rows, hash_rows
from mlxlab.data.labelled.split import (
    assign_groups,
    fold_numbers,
    hold_out,
    latest,
    read_times,
)
from mlxlab.data.labelled.types import (
    ColumnType,
    Kind,
    TypedColumn,
    distinct_texts,
    fit_type,
)
from mlxlab.errors import DataError
from mlxlab.terminal.wording import counted

SPLITS = ("training", "validation", "test")
UNUSED, TRAINING, VALIDATION, TEST = range(-1, 3)


def digest(numbers: np.ndarray) -> str:
    """A hash of integers."""
    return hashlib.sha256(numbers.astype(np.int64).tobytes()).hexdigest()[:32]


@dataclass(frozen=True)
class SplitRows:
    """The rows of a data set by split, with all that was fitted on those for training.

    Args:
        train, valid, test: numbers of the rows of each split, ascending.
        lines: for the log.
        left_out: rows that cannot be used.
    """

    rows: Rows
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    lines: list[str]
    left_out: int
    column: TypedColumn  # the labels of all rows
    labels: Labels
    types: dict[str, ColumnType]
    ids: np.ndarray  # (N,) int64: what each row is called in a batch

    @cached_property
    def numbers(self) -> np.ndarray:
        """The numbers of the rows by position: the training rows first."""
        return np.concatenate([self.train, self.valid, self.test])

    @cached_property
    def position_ids(self) -> np.ndarray:
        """The ids of the rows by position."""
        return self.ids[self.numbers]

    @cached_property
    def content(self) -> dict[str, object]:
        """What the rows of each split depend on, for the key of a cache."""
        splits = list(map(digest, (self.train, self.valid, self.test)))
        return {"sources": self.rows.fingerprint, "split": splits}

    @cached_property
    def targets(self) -> Targets:
        """The encoded labels of the rows by position."""
        return self.labels.encode(self.column.take(self.numbers))


def prepare_rows(
    rows: Rows,
    options: RowOptions,
    columns: Sequence[str],
    required: Sequence[str],
    chosen: Mapping[str, Kind],
    seed: int,
    ids: np.ndarray | None = None,
) -> SplitRows:
    """Splits the rows, and fits types and labels on the training rows.

    Args:
        ids: (N,) what the rows are called, by which they are split; None numbers them.
        columns: those that the model reads; rows of two splits with the same cells in them count as the same.
        required: those of them that may not be blank.
        chosen: `data.types` of the columns; the other types are inferred.

    Raises:
        DataError: rows cannot be used (`on_error` skip leaves them out), or are too few to split.
    """
    if ids is None:
        ids = np.arange(len(rows))
    name = options["target"]
    cells = rows.column(name)
    column_type = label_type(cells.slice(0, int(rows.starts[1])), options)
    unfitted = Labels("classification", column_type, delimiter=options["label_delimiter"])
    column = unfitted.read(name, cells, rows.location)
    splits = _splits_of_sources(rows, options)
    faults = Faults(rows, options["on_error"], options["max_left_out"])
    faults.add_missing(column, required, options["time_column"])
    faults.add_unreadable(column, column_type.read)
    is_first = faults.usable & (splits == TRAINING)
    kind = label_kind(column.take(np.flatnonzero(is_first)), options)
    unfitted = replace(unfitted, kind=kind)
    if kind == "classification" and options["valid_source"] is None:
        counts = np.bincount(column.codes[is_first], minlength=len(column.values))
        is_single = is_first & (counts[column.codes] == 1)
        faults.add(name, "the single row of its class, expected at least 2", is_single)
    faults.check()

    splits[~faults.usable] = UNUSED
    if options["valid_source"] is None:
        first = np.flatnonzero(splits == TRAINING)
        is_valid = _hold_out(rows, first, options, column.take(first), unfitted, ids, seed)
        splits[first[is_valid]] = VALIDATION
    sizes = np.bincount(splits[splits != UNUSED], minlength=len(SPLITS)).tolist()
    described = [counted(size, f"{name} row") for size, name in zip(sizes, SPLITS, strict=True)]
    lines = [f"{rows.name}: {', '.join(itertools.compress(described, sizes))}"]
    lines += _find_overlaps(rows, options["on_overlap"], columns, splits)

    train = np.flatnonzero(splits == TRAINING)
    is_training = pa.array(splits == TRAINING)
    types = dict.fromkeys(columns, ColumnType("text"))
    for name in columns:
        if chosen.get(name) != "text":
            types[name] = fit_type(rows.column(name).filter(is_training), chosen.get(name))
    fitted = fit_labels(column.take(train), options, unfitted)
    faults.add_unreadable(column, fitted.target)
    faults.add_cells(types)
    lines = [*faults.check(), *lines]
    splits[~faults.usable] = UNUSED
    train, valid, test = (np.flatnonzero(splits == split) for split in range(len(SPLITS)))
    if not len(valid):
        raise DataError(f"{rows.name}: no validation rows are left")
    left_out = faults.num_left_out
    return SplitRows(rows, train, valid, test, lines, left_out, column, fitted, types, ids)


def _splits_of_sources(rows: Rows, options: RowOptions) -> np.ndarray:
    """(N,) the split that the source of each row is for."""
    splits = [TRAINING]
    if options["valid_source"] is not None:
        splits.append(VALIDATION)
    if options["test_source"] is not None:
        splits.append(TEST)
    return np.repeat(splits, np.diff(rows.starts))


def _hold_out(
    rows: Rows,
    numbers: np.ndarray,
    options: RowOptions,
    column: TypedColumn,
    labels: Labels,
    ids: np.ndarray,
    seed: int,
) -> np.ndarray:
    """(N,) True for those of these rows that validate."""
    if len(numbers) < 2:
        raise DataError(f"{rows.name}: expected at least 2 usable rows, got {len(numbers)}")
    fraction = options["valid_fraction"]
    folds = options["folds"]
    if options["time_column"] is not None:
        is_read = pa.array(np.isin(np.arange(len(rows)), numbers))
        cells = pc.if_else(is_read, rows.column(options["time_column"]), None)
        times = read_times(options["time_column"], cells, rows.location)[numbers]
        return latest(times, fraction)
    if options["group_column"] is not None:
        groups = distinct_texts(rows.column(options["group_column"]))[1][numbers]
        shares = [fraction, 1 - fraction] if folds is None else [1 / folds] * folds
        return assign_groups(groups, shares, seed) == options["fold"]

    strata = column.codes + 1
    if labels.kind == "regression":
        strata = np.zeros(len(numbers), np.int64)
    if folds is not None:
        is_valid = fold_numbers(ids[numbers], strata, folds, seed) == options["fold"]
    else:
        # None of the rows of a small class need validate: small classes are split together.
        is_small = np.bincount(strata)[strata] * fraction < 1
        is_valid = hold_out(ids[numbers], np.where(is_small, 0, strata), fraction, seed)
    if labels.kind != "regression":
        is_valid &= ~_needed_for_training(column, labels, is_valid)
    return is_valid


def _needed_for_training(column: TypedColumn, labels: Labels, is_valid: np.ndarray) -> np.ndarray:
    """(N,) True for the first validation row of each class or label that no training row has."""
    names = column.map(labels.split)
    known = {name for code in np.unique(column.codes[~is_valid]) for name in names[code]}
    needed = np.zeros(len(is_valid), bool)
    for row in np.flatnonzero(is_valid):
        own = names[column.codes[row]]
        needed[row] = not known.issuperset(own)
        known.update(own)
    return needed


def _find_overlaps(
    rows: Rows, on_overlap: str, columns: Sequence[str], splits: np.ndarray
) -> list[str]:
    """Counts rows of equal content in two splits; drop takes them out of the earlier one, which trains or chooses."""
    blocks = rows.blocks(columns, np.arange(len(rows)))
    hashes = np.concatenate([hash_rows(block) for block in blocks])
    lines = []
    for earlier, later in itertools.combinations(range(len(SPLITS)), 2):
        shared = np.flatnonzero((splits == earlier) & np.isin(hashes, hashes[splits == later]))
        if not len(shared):
            continue
        count = counted(len(shared), f"{SPLITS[earlier]} row")
        others = f"{SPLITS[later]} rows, the first at {rows.location(shared[0])}"
        line = f"{rows.name}: {count}{SAME_INPUT}{others}"
        if on_overlap == "error":
            raise DataError(line)
        if on_overlap == "drop":
            splits[shared] = UNUSED
            line += DROPPED
        lines.append(line)
    return lines
