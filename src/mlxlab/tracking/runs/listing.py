"""Formats runs as a table with one row per run; on a terminal, with the most important of the columns that fit it."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mlxlab.markdown import markdown_table
from mlxlab.tracking.mlflow.names import clean
from mlxlab.tracking.runs.reader import RunRow
from mlxlab.tracking.runs.tables import (
    best_label,
    format_duration,
    format_number,
    format_time,
    last_label,
    name_of,
    ordered,
    shorten,
)

MAX_METRICS = 4  # columns of those that were not requested
# The columns that are no parameters and no metrics, in their order.
FACTS = ("run", "name", "data", "status", "started", "took", "experiment", "parent", "folder")
# Those that a terminal may leave out, the most important first.
_OPTIONAL = ("name", "folder", "status", "data", "took", "started", "parent", "experiment")
_RARE = 100  # rank of metrics that are left out before facts


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
    """A column of a higher rank is left out first, one of None never."""

    name: str
    cells: list[str]
    align: str = "l"
    rank: int | None = None

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
    table = [*_facts(runs, columns.facts)]
    for key in columns.params:
        table.append(_Column(key, [shorten(run.params.get(clean(key), ""), 40) for run in runs]))
    table += _metrics(runs, columns)
    for key, values in columns.best.items():
        cells = [format_number(values.get(run.run_id)) for run in runs]
        table.append(_Column(best_label(key), cells, "r"))
    shown = table if width is None else _that_fit(table, width)
    rows = zip(*(column.cells for column in shown), strict=True)
    align = "".join(column.align for column in shown)
    text = markdown_table([column.name for column in shown], rows, align)
    left_out = [column.name for column in table if any(column.cells) and column not in shown]
    return Listing(text, left_out)


def default_metrics(runs: list[RunRow], sort: str | None = None) -> list[str]:
    """The metric of the order, then those of the objectives and those that half of the runs have."""
    objectives = {name_of(run.objective or "") for run in runs}
    counts = Counter(key for run in runs for key in run.metrics)
    common = {key for key in counts if 2 * counts[key] >= len(runs)}
    # Interrupted runs lack a metric of the test rows: it is as common as its objective.
    common |= {key for key in counts if name_of(key) in objectives}
    keys = ordered(common - {sort}, runs)
    if sort:
        keys.insert(0, sort)
    return keys[:MAX_METRICS]


def _facts(runs: list[RunRow], requested: Sequence[str] | None) -> Iterator[_Column]:
    short_ids = {run.run_id: run.short_id for run in runs}
    facts = [_facts_of(run, short_ids) for run in runs]
    for name in requested or FACTS:
        rank = None
        if requested is None and name in _OPTIONAL:
            rank = 1 + MAX_METRICS + _OPTIONAL.index(name)
        yield _Column(name, [each[name] for each in facts], "l", rank)


def _facts_of(run: RunRow, short_ids: Mapping[str, str]) -> dict[str, str]:
    source = run.params.get("data.source", "None")
    data = run.params.get("choices.data", "")
    folder = run.folder or ""
    here = os.getcwd()
    parent = run.parent or ""
    if source != "None":
        data = f"{data} {Path(source).name}"
    if Path(folder).is_relative_to(here):  # as it is typed
        folder = os.path.relpath(folder, here)
    return {
        "run": run.short_id,
        "name": run.name,
        "data": data.strip(),
        "status": run.status,
        "started": format_time(run.start),
        "took": format_duration(run),
        "experiment": run.experiment,
        "parent": short_ids.get(parent, parent[:8]),
        "folder": folder,
    }


def _metrics(runs: list[RunRow], columns: Columns) -> Iterator[_Column]:
    """Latest values; of metrics that were not requested also those of the best evaluation, which come first."""
    keys = columns.metrics
    if keys is None:
        keys = default_metrics(runs, columns.sort)
    for number, key in enumerate(keys):
        rank = number if number < 2 else _RARE + number
        name = key
        if key in columns.best:
            name = last_label(key)
        elif columns.metrics is None and any(key in run.best for run in runs):
            best = [format_number(run.best.get(key)) for run in runs]
            yield _Column(best_label(key), best, "r", rank)
            rank = _RARE + number
            name = last_label(key)
        cells = [format_number(run.metrics.get(clean(key))) for run in runs]
        is_requested = columns.metrics is not None or key == columns.sort
        yield _Column(name, cells, "r", None if is_requested else rank)


def _that_fit(table: list[_Column], width: int) -> list[_Column]:
    shown = [column for column in table if column.rank is None]
    optional = [column for column in table if column.rank is not None and any(column.cells)]
    left = width - 1 - sum(column.width for column in shown)
    for column in sorted(optional, key=lambda column: column.rank or 0):
        if column.width <= left:
            left -= column.width
            shown.append(column)
    return [column for column in table if column in shown]
