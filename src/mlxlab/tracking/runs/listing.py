"""Formats runs as a table with one row per run; on a terminal, with the most important of the columns that fit it."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mlxlab.markdown import markdown_table
from mlxlab.metric_names import TEST, VALID
from mlxlab.tracking.mlflow.client import clean
from mlxlab.tracking.runs.objectives import best_label, last_label, objectives
from mlxlab.tracking.runs.reader import RunRow
from mlxlab.tracking.runs.tables import (
    format_duration,
    format_number,
    format_time,
    ordered,
    shorten,
)

MAX_METRICS = 4  # columns of those that were not requested


def data_of(run: RunRow) -> str:
    """The option of the group `data`, and the name of the file: `table tickets.csv`."""
    source = run.params.get("data.source", "None")
    file = "" if source == "None" else Path(source).name
    return f"{run.params.get('choices.data', '')} {file}".strip()


def short_path(run: RunRow) -> str:
    """The run folder as it is typed: relative to the working folder, where it is below that."""
    here = os.getcwd()
    if run.folder is None or not Path(run.folder).is_relative_to(here):
        return run.folder or ""
    return os.path.relpath(run.folder, here)


# The columns that are no parameters and no metrics, in their order.
FACTS: dict[str, Callable[[RunRow], str]] = {
    "run": lambda run: run.short_id,
    "name": lambda run: run.name,
    "data": data_of,
    "status": lambda run: run.status,
    "started": lambda run: format_time(run.start),
    "took": format_duration,
    "experiment": lambda run: run.experiment,
    "parent": lambda run: (run.parent or "")[:8],
    "folder": short_path,
}
# The most important first; `run` is always shown.
_IMPORTANCE = ("name", "folder", "status", "data", "took", "started", "parent", "experiment")
# Groups of columns, the most important first.
_MAIN_METRIC, _DIFFERENT, _EQUAL, _OTHER_METRIC = range(4)


class Columns(NamedTuple):
    """What a list shows of each run. None: what most of the runs have, of which a terminal shows what fits."""

    facts: Sequence[str] | None = None
    metrics: Sequence[str] | None = None  # latest values
    params: Sequence[str] = ()
    best: Mapping[str, Mapping[str, float]] = {}  # metric -> run id -> best value
    sort: str | None = None  # metric; with `metrics` of None the first of them


class Listing(NamedTuple):
    """A table of runs, and the names of the columns that do not fit the terminal."""

    table: str
    left_out: list[str]


class _Column(NamedTuple):
    """`rank`: group and position; a column of a higher rank is left out first, one of None never."""

    name: str
    cells: list[str]
    align: str
    rank: tuple[int, int] | None = None

    @property
    def width(self) -> int:
        return 3 + max(3, len(self.name), *map(len, self.cells))


def format_list(runs: list[RunRow], columns: Columns, width: int | None = None) -> Listing:
    """One line per run.

    Args:
        runs: at least one.
        width: of the terminal, on which empty columns and those that do not fit are left out unless they were
            requested; None shows all.
    """
    table = list(_facts(runs, columns.facts))
    for key in columns.params:
        cells = [shorten(run.params.get(clean(key), ""), 40) for run in runs]
        table.append(_Column(key, cells, "l"))
    table += _metrics(runs, columns)
    for key, values in columns.best.items():
        cells = [format_number(values.get(run.run_id)) for run in runs]
        table.append(_Column(best_label(key), cells, "r"))
    shown = table if width is None else _that_fit(table, width)
    head = [column.name for column in shown]
    rows = zip(*(column.cells for column in shown), strict=True)
    text = markdown_table(head, rows, "".join(column.align for column in shown))
    left_out = [column.name for column in table if any(column.cells) and column not in shown]
    return Listing(text, left_out)


def default_metrics(runs: list[RunRow], sort: str | None = None) -> list[str]:
    """The metric of the order, the objectives, these on the test rows, then those that most of the runs have."""
    counts = Counter(key for run in runs for key in run.metrics)
    first = ordered(objectives(runs) & counts.keys(), runs)
    tests = {TEST + key.removeprefix(VALID): key for key in first}
    keys = [*first, *(key for key in tests if key in counts), *ordered(counts, runs)]

    def is_rare(key: str) -> bool:
        # Interrupted runs lack a metric of the test rows: it is as common as its objective.
        return 2 * counts[tests.get(key, key)] < len(runs)

    keys.sort(key=is_rare)  # stable
    if sort:
        keys.insert(0, sort)
    return list(dict.fromkeys(keys))[:MAX_METRICS]


def _facts(runs: list[RunRow], requested: Sequence[str] | None) -> Iterator[_Column]:
    ids = {run.run_id: run.short_id for run in runs}
    for name in FACTS if requested is None else requested:
        cells = [FACTS[name](run) for run in runs]
        if name == "parent":
            cells = [ids.get(run.parent or "", cell) for run, cell in zip(runs, cells, strict=True)]
        rank = None
        if requested is None and name in _IMPORTANCE:
            is_equal = len(runs) > 1 and len(set(cells)) == 1
            rank = (_EQUAL if is_equal else _DIFFERENT, _IMPORTANCE.index(name))
        yield _Column(name, cells, "l", rank)


def _metrics(runs: list[RunRow], columns: Columns) -> Iterator[_Column]:
    """Latest values; of metrics that were not requested also those of the best evaluation, which come first."""
    is_default = columns.metrics is None
    keys = default_metrics(runs, columns.sort) if columns.metrics is None else columns.metrics
    for number, key in enumerate(keys):
        rank = (_MAIN_METRIC if number < 2 else _OTHER_METRIC, number)
        name = last_label(key) if key in columns.best else key
        if is_default and key not in columns.best and any(key in run.best for run in runs):
            best = [format_number(run.best.get(key)) for run in runs]
            yield _Column(best_label(key), best, "r", rank)
            rank = (_OTHER_METRIC, number)
            name = last_label(key)
        cells = [format_number(run.metrics.get(clean(key))) for run in runs]
        is_requested = not is_default or key == columns.sort
        yield _Column(name, cells, "r", None if is_requested else rank)


def _that_fit(table: list[_Column], width: int) -> list[_Column]:
    shown = [column for column in table if column.rank is None]
    optional = [column for column in table if column.rank is not None and any(column.cells)]
    left = width - 1 - sum(column.width for column in shown)
    for column in sorted(optional, key=lambda column: column.rank or (0, 0)):
        if column.width <= left:
            left -= column.width
            shown.append(column)
    return [column for column in table if column in shown]
