"""Runs of a store as tables: a list of them, one run with all details, two by their differences."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain, product
from typing import Any

from mlxlab.terminal.program import display_path
from mlxlab.terminal.tables import markdown_table
from mlxlab.terminal.wording import one_line
from mlxlab.tracking.mlflow.names import clean
from mlxlab.tracking.mlflow.runs import MAIN, Difference, RunRow
from mlxlab.views.numbers import compact, duration, moment

MAX_METRICS = 4  # columns of a list
MAX_TEXT = 100  # characters of a cell
SPLITS = ("valid", "test", "train")  # This is the order in which they are shown.
# Columns that a narrow terminal lacks, in the order in which they are left out.
OPTIONAL = ("started", "took", "folder", "data", "status", "name")


def list_table(
    runs: Sequence[RunRow],
    metrics: Sequence[str] = (),
    params: Sequence[str] = (),
    width: int | None = None,
) -> str:
    """A row for each run.

    Args:
        runs: at least one.
        metrics: columns of metrics; none takes the main ones that half of the runs have.
        params: columns of parameters.
        width: of the terminal, on which columns that do not fit are left out; None shows all.
    """
    metrics = metrics or shown_metrics(runs)
    rows = [_list_row(run, metrics, params) for run in runs]
    names = list(dict.fromkeys(chain.from_iterable(rows)))
    text = table(names, [map(row.get, names) for row in rows])
    for name in OPTIONAL:
        if width is None or text.index("\n") <= width:
            break
        names.remove(name)
        text = table(names, [map(row.get, names) for row in rows])
    return text


def shown_metrics(runs: Sequence[RunRow]) -> list[str]:
    """The main metrics that half of the runs have."""
    counts = Counter(chain.from_iterable(run.metrics for run in runs))
    common = [key for key in counts if 2 * counts[key] >= len(runs)]
    return ordered(common, runs)[:MAX_METRICS]


def run_tables(run: RunRow) -> str:
    """One run: its facts, its data, its metrics, its parameters, its tags."""
    metrics = {key: run.metrics[key] for key in ordered(run.metrics, [run])}
    sections = {
        ("run", run.uid or run.run_id): _facts(run),
        ("data", "digest"): run.datasets,
        ("metric", "last value"): metrics,
        ("param", "value"): dict(sorted(run.params.items())),
        ("tag", "value"): dict(sorted(run.tags.items())),
    }
    tables = []
    for head, values in sections.items():
        rows = [item for item in values.items() if item[1] not in (None, "")]
        if rows:
            tables.append(table(head, rows))
    return "\n\n".join(tables)


def difference_table(first: RunRow, second: RunRow, difference: Difference) -> str:
    """What differs between two runs, a row for each."""
    runs = (first, second)
    rows = []
    for section, pairs in difference.items():
        rows += [(section, key, *pairs[key]) for key in ordered(pairs, runs)]
    if not rows:
        return "no differences"
    names = [f"{run.short_id} {run.name}" for run in runs]
    return table(["", "key", *names], rows)


def ordered(metrics: Iterable[str], runs: Sequence[RunRow]) -> list[str]:
    """Metrics as they are shown: objectives of the runs, main metrics, the others by name."""
    objectives = [(run.objective or "").partition("/")[2] for run in runs]
    known = [f"{split}/{name}" for name, split in product([*objectives, *MAIN], SPLITS)]
    others = sorted(metrics)
    first = [key for key in dict.fromkeys(known) if key in others]
    return [*first, *(key for key in others if key not in first)]


def _facts(run: RunRow) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "name": run.name,
        "data": run.params.get("choices.data"),
        "status": run.status,
        "started": None,
        "took": None,
        "folder": run.folder and display_path(run.folder),
        "experiment": run.experiment,
        "parent": run.parent,
        "MLflow run id": run.run_id,
    }
    if run.start is not None:
        facts["started"] = moment(run.start / 1000)
    if run.seconds is not None:
        facts["took"] = duration(run.seconds)
    for key in ordered(run.best, [run]):
        facts[f"{key} (best)"] = run.best[key]
    return facts


def _list_row(run: RunRow, metrics: Sequence[str], params: Sequence[str]) -> dict[str, Any]:
    facts = _facts(run)
    row: dict[str, Any] = {"run": run.short_id}
    row |= {name: facts[name] for name in facts if name in OPTIONAL}
    row |= {key: run.params.get(clean(key)) for key in params}
    for key in metrics:
        label = f"{key} (best)"
        if label in facts:
            row[label] = facts[label]
        else:
            row[key] = run.metrics.get(clean(key))
    return row


def table(head: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table of values as they are; None is an empty cell."""
    return markdown_table(head, [list(map(_cell, row)) for row in rows], "l")


def _cell(value: str | float | None) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return one_line(value, MAX_TEXT)
    return compact(value)
