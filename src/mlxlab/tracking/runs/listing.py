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
FACTS: dict[
    str, Callable[[RunRow], str]
] = {  # columns that are no parameters and no metrics, in their order
    "run": lambda run: run.short_id,
    "name": lambda run: run.name,
    "data": lambda run: data_of(run),
    "status": lambda run: run.status,
    "started": lambda run: format_time(run.start),
    "took": format_duration,
    "experiment": lambda run: run.experiment,
    "parent": lambda run: (run.parent or "")[:8],
    "folder": lambda run: _short_path(run.folder),
}
_RANKS = {  # the first two metrics are above them, the others below
    name: rank
    for rank, name in enumerate(
        ("name", "folder", "status", "data", "took", "started", "parent", "experiment"), 2
    )
}
MAX_RANK = 2 * len(_RANKS) + 2


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
    """`rank`: one of a higher rank is left out first; None is never left out."""

    name: str
    cells: list[str]
    align: str
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
    table = [*_facts(runs, columns.facts), *_params(runs, columns.params), *_metrics(runs, columns)]
    for key, values in columns.best.items():
        table.append(
            _Column(best_label(key), [format_number(values.get(run.run_id)) for run in runs], "r")
        )
    shown = table if width is None else _that_fit(table, width)
    rows = zip(*(each.cells for each in shown), strict=True)
    text = markdown_table(
        [each.name for each in shown], rows, "".join(each.align for each in shown)
    )
    return Listing(text, [each.name for each in table if any(each.cells) and each not in shown])


def _facts(runs: list[RunRow], requested: Sequence[str] | None) -> Iterator[_Column]:
    ids = {run.run_id: run.short_id for run in runs}
    for name in FACTS if requested is None else requested:
        cells = [FACTS[name](run) for run in runs]
        if name == "parent":
            cells = [ids.get(run.parent or "", cell) for run, cell in zip(runs, cells, strict=True)]
        rank = _RANKS.get(name) if requested is None else None
        if rank is not None and len(runs) > 1 and len({*cells}) == 1:
            rank += len(_RANKS)  # does not tell the runs apart
        yield _Column(name, cells, "l", rank)


def _params(runs: list[RunRow], keys: Sequence[str]) -> Iterator[_Column]:
    for key in keys:
        yield _Column(key, [shorten(run.params.get(clean(key), ""), 40) for run in runs], "l")


def _metrics(runs: list[RunRow], columns: Columns) -> Iterator[_Column]:
    is_default = columns.metrics is None
    keys = default_metrics(runs, columns.sort) if columns.metrics is None else columns.metrics
    for number, key in enumerate(keys):
        rank, name = number if number < 2 else MAX_RANK + number, key
        if is_default and any(key in run.best for run in runs) and key not in columns.best:
            yield _Column(
                best_label(key), [format_number(run.best.get(key)) for run in runs], "r", rank
            )
            rank, name = MAX_RANK + number, last_label(key)
        elif key in columns.best:
            name = last_label(key)
        cells = [format_number(run.metrics.get(clean(key))) for run in runs]
        yield _Column(name, cells, "r", rank if is_default and key != columns.sort else None)


def _that_fit(table: list[_Column], width: int) -> list[_Column]:
    optional = sorted(
        (each for each in table if each.rank is not None), key=lambda each: each.rank or 0
    )
    shown = [each for each in table if each.rank is None]
    left = width - 1 - sum(each.width for each in shown)
    for each in optional:
        if any(each.cells) and each.width <= left:
            left -= each.width
            shown.append(each)
    return [each for each in table if each in shown]


def default_metrics(runs: list[RunRow], sort: str | None = None) -> list[str]:
    """The metric of the order, the objectives, these on the test rows, then those that most of the runs have."""
    counts = Counter(key for run in runs for key in run.metrics)
    first = ordered(objectives(runs) & counts.keys(), runs)
    tests = {TEST + key.removeprefix(VALID): key for key in first}
    names = dict.fromkeys(
        [*first, *(key for key in tests if key in counts), *ordered(counts, runs)]
    )

    def is_rare(key: str) -> bool:
        return 2 * counts[tests.get(key, key)] < len(runs)

    common = sorted(names, key=is_rare)  # stable
    return [*dict.fromkeys([*([sort] if sort else []), *common])][:MAX_METRICS]


def data_of(run: RunRow) -> str:
    """The option of the group `data`, and the name of the file: `table tickets.csv`."""
    source = run.params.get("data.source", "None")
    return " ".join(
        filter(
            None, [run.params.get("choices.data"), "" if source == "None" else Path(source).name]
        )
    )


def _short_path(folder: str | None) -> str:
    """As it is typed: relative to the working folder, where it is below that."""
    if folder is None or not Path(folder).is_relative_to(cwd := os.getcwd()):
        return folder or ""
    return os.path.relpath(folder, cwd)
