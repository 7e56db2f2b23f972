"""Columns that give the label away."""

from collections.abc import Mapping

import numpy as np

from mlxlab.data.labelled.types import TypedColumn
from mlxlab.data.rng import permutation

MIN_ROWS = 3  # average number for each category; fewer are no repetition
GIVEAWAY = 0.99  # share of rows whose label is that of a neighbour


def find_giveaways(columns: Mapping[str, TypedColumn], classes: np.ndarray) -> list[str]:
    """A line for each column that alone gives the label away.

    A row is judged by those next to it in the order of the column, in which equal values stand in random order.

    Args:
        columns: those that are no texts.
        classes: (N,) of each row, from 0.
    """
    lines: list[str] = []
    majority = np.bincount(classes).max() / len(classes)
    random_order = permutation(len(classes), 0)
    for name, column in columns.items():
        if column.type.kind != "category":
            values = column.amounts()
        elif len(column.values) * MIN_ROWS <= len(classes):
            values = column.codes
        else:
            continue
        labels = classes[np.lexsort((random_order, values))]
        is_same = np.concatenate([[False], labels[1:] == labels[:-1], [False]])
        share = np.mean(is_same[1:] | is_same[:-1])
        if share >= GIVEAWAY and share > (1 + majority) / 2:
            lines.append(f"column {name!r} alone tells the label of nearly all training rows")
    return lines
