"""What is suspicious about labels: some that look the same, and columns that give them away."""

import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np

from mlxlab.data.labelled.types import TypedColumn, amount

MIN_ROWS_PER_VALUE = 3  # of a column whose values repeat
GIVEAWAY = 0.99  # of the rows whose label follows from one column
INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"))


def look_alikes(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Groups of labels that look the same: they differ in case, composition, white space or invisible characters."""
    groups: dict[str, list[str]] = {}
    for name in names:
        composed = unicodedata.normalize("NFKC", name)
        visible = composed.translate(INVISIBLE).casefold()
        look = " ".join(visible.split())
        groups.setdefault(look, []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def spell_code_points(name: str) -> str:
    """A label in ASCII, so that it can be told from one that looks the same."""
    return name.encode("unicode_escape").decode()


def giveaways(columns: Mapping[str, TypedColumn], classes: np.ndarray) -> dict[str, float]:
    """The columns each of which alone gives the label away, with the share of rows for which it does.

    A row is judged by the others with the same value, or by its neighbour in the order of numbers that hardly repeat.

    Args:
        classes: (N,) of each row, from 0.
    """
    if not len(classes):
        return {}
    majority = np.bincount(classes).max() / len(classes)
    shares: dict[str, float] = {}
    for name, column in columns.items():
        share = _share_explained(column, classes)
        is_better = share - majority > (1 - majority) / 2
        if share >= GIVEAWAY and is_better:
            shares[name] = share
    return shares


def _share_explained(column: TypedColumn, classes: np.ndarray) -> float:
    """The share of rows whose label the column tells; 0 for texts and categories that hardly repeat."""
    repeats = len(column.values) * MIN_ROWS_PER_VALUE <= len(classes)
    if repeats and column.type.kind != "text":
        return _share_by_group(column, classes)
    if column.type.kind in ("number", "integer", "datetime"):
        return _share_by_neighbour(column, classes)
    return 0.0


def _share_by_group(column: TypedColumn, classes: np.ndarray) -> float:
    """The share of rows whose label is the most frequent one of the others with the same value."""
    num_groups = len(column.values) + 1  # The last one is that of missing cells.
    counts = np.zeros((num_groups, classes.max() + 1), np.int64)
    np.add.at(counts, (column.codes, classes), 1)

    own = counts[column.codes, classes]
    order = np.sort(counts, axis=1)
    largest = order[:, -1][column.codes]
    second = order[:, -2][column.codes] if counts.shape[1] > 1 else 0
    # Without the row itself its class must still be the most frequent one of its group.
    is_told = (own == largest) & (own - 1 >= second) & (own > 1)
    return float(is_told.mean())


def _share_by_neighbour(column: TypedColumn, classes: np.ndarray) -> float:
    """The share of rows whose label is that of the next larger amount."""
    present = column.codes >= 0
    if present.sum() < 2:
        return 0.0
    amounts = np.array([amount(value) for value in column.values])
    order = np.argsort(amounts[column.codes[present]], kind="stable")
    labels = classes[present][order]
    is_told = labels[1:] == labels[:-1]
    return float(is_told.mean() * present.mean())
