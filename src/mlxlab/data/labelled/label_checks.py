"""What is suspicious about labels: some that look the same, and columns that give them away."""

import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np

from mlxlab.data.labelled.types import TypedColumn

MIN_ROWS_PER_VALUE = 3  # fewer than these are no repetition
GIVEAWAY = 0.99  # share of rows whose label follows from one column


def find_look_alikes(names: Sequence[str]) -> list[str]:
    """A line for each group of labels that differ in case, composition, white space or invisible characters alone."""
    groups: dict[str, list[str]] = {}
    for name in names:
        composed = unicodedata.normalize("NFKC", name).casefold()
        visible = "".join(sign for sign in composed if not _is_invisible(sign))
        look = " ".join(visible.split())
        groups.setdefault(look, []).append(name)
    # Only in ASCII can such labels be told apart.
    listed = [", ".join(map(ascii, group)) for group in groups.values() if len(group) > 1]
    return [f"labels that look the same: {names}" for names in listed]


def _is_invisible(sign: str) -> bool:
    """Whether it is a format character or a variation selector."""
    is_format = unicodedata.category(sign) == "Cf" and sign < "\U000e0000"  # not the tags of flags
    return is_format or "\ufe00" <= sign <= "\ufe0f"


def find_giveaways(columns: Mapping[str, TypedColumn], classes: np.ndarray) -> list[str]:
    """A line for each column that alone gives the label away.

    A row is judged by the others with the same value, or by its neighbour in the order of numbers that hardly repeat.

    Args:
        columns: those that are no texts.
        classes: (N,) of each row, from 0.
    """
    lines: list[str] = []
    majority = np.bincount(classes).max() / len(classes)
    for name, column in columns.items():
        share = 0.0
        if len(column.values) * MIN_ROWS_PER_VALUE <= len(classes):
            share = _share_by_group(column, classes)
        elif column.type.kind != "category":
            share = _share_by_neighbour(column.amounts(), classes)
        if share >= GIVEAWAY and share > (1 + majority) / 2:
            lines.append(f"column {name!r} alone tells the label of nearly all training rows")
    return lines


def _share_by_group(column: TypedColumn, classes: np.ndarray) -> float:
    """The share of rows whose label is the most frequent one of the others with the same value."""
    num_groups = len(column.values) + 1  # The last one is that of missing cells.
    counts = np.zeros((num_groups, classes.max() + 2), np.int64)
    np.add.at(counts, (column.codes, classes), 1)

    own = counts[column.codes, classes]
    second, largest = np.sort(counts, axis=1)[:, -2:].T
    # Without the row itself its class must still be the most frequent one of its group.
    is_largest = own == largest[column.codes]
    is_told = is_largest & (own > second[column.codes]) & (own > 1)
    return float(is_told.mean())


def _share_by_neighbour(amounts: np.ndarray, classes: np.ndarray) -> float:
    """The share of rows whose label is that of the next larger amount."""
    order = np.argsort(amounts, kind="stable")
    present = order[~np.isnan(amounts[order])]
    labels = classes[present]
    is_told = labels[1:] == labels[:-1]
    return float(is_told.sum() / len(classes))
