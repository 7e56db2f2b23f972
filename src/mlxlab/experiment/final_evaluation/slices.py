"""The metrics of an evaluation by the values of a column."""

from collections import Counter
from typing import NamedTuple

import numpy as np

from mlxlab.data.batch import Task
from mlxlab.data.dataset import Table
from mlxlab.experiment.final_evaluation.evaluate import (
    MODEL,
    SplitResults,
    judge,
)
from mlxlab.markdown import markdown_table
from mlxlab.training.evaluate import Evaluation
from mlxlab.training.metrics.labelled import Thresholds
from mlxlab.views.numbers import interval, number

MAX_VALUES = 20  # the most frequent ones of a column; the others are one slice
MISSING = "missing"
OTHERS = "others"


class Slice(NamedTuple):
    """The results on the rows with one value of a column."""

    column: str
    value: str
    results: SplitResults


def judge_slices(
    task: Task, main: str, evaluation: Evaluation, table: Table, thresholds: Thresholds
) -> list[Slice]:
    """The slices by each column of a table, the most frequent value first.

    Args:
        table: of the rows of the evaluation, in its order.
    """
    slices: list[Slice] = []
    for column, cells in table.items():
        values = np.array([MISSING if cell is None else cell for cell in cells], object)
        frequent = [value for value, _ in Counter(values.tolist()).most_common(MAX_VALUES)]
        values[~np.isin(values, frequent)] = OTHERS
        for value in dict.fromkeys([*frequent, *values]):
            chosen = values == value
            part = evaluation._replace(
                positions=evaluation.positions[chosen],
                ids=evaluation.ids[chosen],
                targets=evaluation.targets[chosen],
                outputs=evaluation.outputs[chosen],
            )
            predictions = {MODEL: part.outputs}
            results = judge(task, main, "valid", part, predictions, {MODEL: thresholds})
            del results.metrics["loss"]  # It is that of all rows.
            slices.append(Slice(column, value, results))
    return slices


def slices_table(metric: str, slices: list[Slice]) -> str:
    """The main metric of each slice with its interval."""
    rows: list[list[str]] = []
    for column, value, results in slices:
        cells = [number(results.metrics[metric]), interval(results.intervals.get(metric))]
        rows.append([f"{column}: {value}", f"{len(results.evaluation.ids):,}", *cells])
    return markdown_table(["slice", "rows", metric, "95 % interval"], rows)


def slices_json(slices: list[Slice]) -> dict[str, dict[str, object]]:
    """Rows, metrics and intervals by column and value."""
    columns: dict[str, dict[str, object]] = {}
    for column, value, results in slices:
        columns.setdefault(column, {})[value] = {
            "rows": len(results.evaluation.ids),
            "metrics": results.metrics,
            "intervals": results.intervals,
        }
    return columns
