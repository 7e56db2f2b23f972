"""Splits the rows of a labelled data set by its settings, after leaving out those that cannot be used."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import numpy as np

from mlxlab.data.batch import TaskKind
from mlxlab.data.labelled.fit_labels import fit_labels, label_kind, too_many_classes
from mlxlab.data.labelled.labelled_rows import LabelledRows, Sources
from mlxlab.data.labelled.labels import Column, Labels, shorten
from mlxlab.data.labelled.left_out import (
    LEFT_OUT,
    LeftOut,
    leave_out,
    no_time,
)
from mlxlab.data.labelled.options import left_out_options
from mlxlab.data.labelled.split import (
    OnOverlap,
    Overlap,
    SplitOptions,
    describe_overlap,
    parse_times,
    split_rows,
)
from mlxlab.errors import DataError, UserError
from mlxlab.wording import counted

FEW = 20  # validation rows: the 95 % interval of an accuracy is wider than 0.3
SPLITS = ("training", "validation", "test")


class RowSplit(NamedTuple):
    """Numbers of the rows of each split, ascending, with lines for the log."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    lines: list[str]
    left_out: int  # rows that cannot be used

    def digests(self) -> list[str]:
        return [digest(rows) for rows in self[:3]]


def digest(numbers: np.ndarray) -> str:
    """A hash of integers."""
    return hashlib.sha256(numbers.astype(np.int64).tobytes()).hexdigest()[:32]


def split_sources(
    sources: Sources, inputs: Sequence[str], required: Sequence[str], seed: int
) -> tuple[RowSplit, Labels, Column]:
    """Splits the rows and fits labels on the training rows; returns the column of all labels too.

    Args:
        inputs: the columns that the model reads, by which rows of two splits count as the same.
        required: those of them that may not be blank.

    Raises:
        DataError: rows without a label or a required text (`on_error` skip leaves them out), or too few to split.
    """
    rows, options = sources.rows, sources.split
    cells = rows.codes(sources.label.column)
    labels = cells.stripped()
    if sources.label.delimiter is not None:
        labels = labels.with_empty_cells()
    others = [] if options.time_column is None else [no_time(rows, options.time_column)]
    single_rows = partial(_single_rows_of_first, sources, labels)
    usable, left_out = leave_out(
        rows, labels, required, *left_out_options(sources.options), others, single_rows
    )
    lines = [each.describe() for each in left_out]
    lines += [f"{rows.name}: {line}" for line in cells.describe_white_space()]
    bounds = [
        (int(start), int(end)) for start, end in zip(rows.starts[:-1], rows.starts[1:], strict=True)
    ]
    ranges = [np.flatnonzero(usable[start:end]) + start for start, end in bounds]
    empty = np.zeros(0, np.int64)
    test = ranges.pop() if sources.options["test_source"] is not None else empty
    kind = label_kind(labels.take(ranges[0]), sources.label)
    if sources.options["valid_source"] is not None:
        train, valid, method = ranges[0], ranges[1], sources.options["valid_source"]
    else:
        first = ranges[0]
        if len(first) < 2:
            raise DataError(
                f"{rows.name}: {counted(len(first), 'usable row')}, expected at least 2 to split them"
            )
        if kind == "classification":
            _refuse_single_rows(
                labels.take(first), [each for each in left_out if each.source == rows.name]
            )
        strata = _strata(labels, first, kind, options)
        split = split_rows(options, strata, *_groups_and_times(rows, options, first), seed)
        is_valid = np.isin(np.arange(len(first)), split.valid)
        if options.group_column is None and options.time_column is None and kind != "regression":
            is_valid &= ~_needed_for_training(
                labels.take(first), is_valid, kind, sources.label.delimiter
            )
        train, valid, method = first[~is_valid], first[is_valid], split.method
    sizes = (
        f"{counted(len(train), 'training row')}, {counted(len(valid), 'validation row')} ({method})"
    )
    lines.append(
        f"{rows.name}: {sizes}" + (f", {counted(len(test), 'test row')}" if len(test) else "")
    )
    if len(valid) < FEW:
        few = f"only {counted(len(valid), 'validation row')}: metrics on so few say little"
        lines.append(f"{rows.name}: {few}")
    parts = [train, valid, test]
    if options.group_column is not None:
        _refuse_shared_groups(rows, options.group_column, parts)
    parts, overlap = _overlaps(rows, inputs, parts, sources.options["on_overlap"])
    train, valid, test = parts
    fitted = fit_labels(labels.take(train), sources.label, kind)
    if not len(valid):
        raise DataError(f"{rows.name}: no validation rows are left ({sizes})")
    unusable = sum(each.left_out for each in left_out)
    return RowSplit(train, valid, test, [*lines, *overlap], unusable), fitted, labels


def _strata(labels: Column, rows: np.ndarray, kind: TaskKind, options: SplitOptions) -> np.ndarray:
    """What is spread evenly over the splits: the classes, those of few rows together; numbers are one class."""
    codes = labels.codes[rows]
    is_split_freely = options.group_column is None and options.time_column is None
    if not is_split_freely or kind == "regression":
        return np.zeros(len(rows), np.int64)
    _, classes, counts = np.unique(codes, return_inverse=True, return_counts=True)
    if options.folds is not None:
        return classes + 1
    return np.where(
        counts[classes] * options.valid_fraction >= 1, classes + 1, 0
    )  # of a small one none need validate


def _single_rows_of_first(sources: Sources, labels: Column, usable: np.ndarray) -> str:
    """The fault of classes of one row in the usable rows of the first source, where these are to be split."""
    first = np.flatnonzero(usable[: sources.rows.starts[1]])
    if sources.options["valid_source"] is not None or not len(first):
        return ""
    with suppress(
        UserError
    ):  # of the labels themselves, which is reported once the others are mended
        if label_kind(labels.take(first), sources.label) == "classification":
            return _find_single_rows(labels.take(first))
    return ""


def _find_single_rows(labels: Column) -> str:
    """The fault of classes of one row; "" without any."""
    counts = np.bincount(labels.codes)
    if not (counts == 1).any() or too_many_classes(len(counts), len(labels.codes)):
        return ""
    code = int(np.argmax(counts == 1))
    single = [labels.values[code] for code in np.flatnonzero(counts == 1).tolist()]
    others = f" (as {len(single) - 1} more)" if len(single) > 1 else ""
    got = (
        f"class {shorten(single[0])!r} has a single row{others}, expected at least 2 to split them"
    )
    return f"{labels.where(code)}: {got}"


def _refuse_single_rows(labels: Column, left_out: Sequence[LeftOut]) -> None:
    """Raises DataError for classes of one row."""
    if fault := _find_single_rows(labels):
        besides = "".join(f"; {each.describe().partition(LEFT_OUT)[0]}" for each in left_out)
        raise DataError(f"{fault}{besides}")


def _needed_for_training(
    labels: Column, is_valid: np.ndarray, kind: TaskKind, delimiter: str | None
) -> np.ndarray:
    """(N,) True for the first validation row of each class or label that no training row has."""
    trained = np.bincount(labels.codes[~is_valid], minlength=len(labels.values)) > 0
    names: list[list[str]] = [[value] for value in labels.values]
    if kind == "multi_label":
        names = [labels.labels(code, delimiter) for code in range(len(labels.values))]
    known = {name for code in np.flatnonzero(trained) for name in names[code]}
    needed = np.zeros(len(is_valid), bool)
    for code in np.flatnonzero(~trained):
        if not known.issuperset(names[code]):
            needed[np.argmax(labels.codes == code)] = True
            known.update(names[code])
    return needed


def _groups_and_times(
    rows: LabelledRows, options: SplitOptions, numbers: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray | None]:
    if options.time_column is not None:
        column = rows.codes(options.time_column).take(numbers)
        times = parse_times(list(column.values), lambda value: column.where(value))
        return None, times[column.codes]
    if options.group_column is not None:
        return rows.codes(options.group_column).codes[numbers], None
    return None, None


def _refuse_shared_groups(rows: LabelledRows, name: str, parts: Sequence[np.ndarray]) -> None:
    column = rows.codes(name)
    for earlier, later in ((0, 1), (0, 2), (1, 2)):
        shared = np.intersect1d(column.codes[parts[earlier]], column.codes[parts[later]])
        if len(shared := shared[shared >= 0]):
            sides = f"in {SPLITS[earlier]} and {SPLITS[later]} rows"
            raise DataError(f"{column.where(int(shared[0]))}: {len(shared)} groups stand {sides}")


def _overlaps(
    rows: LabelledRows, inputs: Sequence[str], parts: list[np.ndarray], on_overlap: OnOverlap
) -> tuple[list[np.ndarray], list[str]]:
    """Counts rows of equal content in two splits; drop takes them out of the earlier one, which trains or chooses."""
    hashes, lines = rows.text_hashes(inputs), list[str]()
    for earlier, later in ((0, 1), (0, 2), (1, 2)):
        shared = np.isin(hashes[parts[earlier]], hashes[parts[later]])
        if not (count := int(shared.sum())):
            continue
        first = rows.location(int(parts[earlier][np.argmax(shared)]))
        overlap = Overlap(count, SPLITS[earlier], SPLITS[later], left_out=on_overlap == "drop")
        if on_overlap == "drop":
            parts[earlier] = parts[earlier][~shared]
        line = describe_overlap(overlap, first, len(parts[earlier]))
        if on_overlap == "error":
            raise DataError(f"{rows.name}: {line.replace('; data', ' (data')})")
        lines.append(f"{rows.name}: {line}")
    return parts, lines
