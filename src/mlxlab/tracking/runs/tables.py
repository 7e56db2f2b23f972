"""Formats runs as text: a list of them, one run with all details, two by their differences."""

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from mlxlab.markdown import markdown_table
from mlxlab.program import display_path
from mlxlab.tracking.mlflow.names import clean, truncate
from mlxlab.tracking.runs.diff import Difference
from mlxlab.tracking.runs.reader import MAIN, RunRow

MAX_METRICS = 4  # columns of a list
_SPLITS = ("valid", "test", "train")  # This is their order.
# Columns that a narrow terminal lacks, in the order in which they are left out.
_OPTIONAL = ["started", "took", "folder", "data", "status", "name"]


def format_list(
    runs: Sequence[RunRow],
    metrics: Sequence[str] = (),
    params: Sequence[str] = (),
    width: int | None = None,
) -> str:
    """One line per run.

    Args:
        runs: at least one.
        metrics: columns of metrics; none takes the main ones that half of the runs have.
        params: columns of parameters.
        width: of the terminal, on which columns that do not fit are left out; None shows all.
    """
    rows = [_list_row(run, metrics or shown_metrics(runs), params) for run in runs]
    columns: dict[str, str] = {}
    for row in rows:
        columns |= row
    names = list(columns)
    optional = list(_OPTIONAL)
    table = _table(names, rows)
    while width is not None and table.index("\n") > width and optional:
        names.remove(optional.pop(0))
        table = _table(names, rows)
    return table


def shown_metrics(runs: Sequence[RunRow]) -> list[str]:
    counts: Counter[str] = Counter()
    for run in runs:
        counts.update(run.metrics.keys())
    common = [key for key in counts if 2 * counts[key] >= len(runs)]
    return ordered(common, runs)[:MAX_METRICS]


def format_run(run: RunRow) -> str:
    """One run: its facts, its data, its metrics, its parameters, its tags."""
    metrics = {key: format_number(run.metrics[key]) for key in ordered(run.metrics, [run])}
    sections = [
        _pair_table(["run", run.uid or run.run_id], _facts(run)),
        _pair_table(["data", "digest"], run.datasets),
        _pair_table(["metric", "last value"], metrics),
        _pair_table(["param", "value"], dict(sorted(run.params.items()))),
        _pair_table(["tag", "value"], dict(sorted(run.tags.items()))),
    ]
    return "\n\n".join(filter(None, sections))


def format_diff(first: RunRow, second: RunRow, difference: Difference) -> str:
    """What differs between two runs, one line each."""
    runs = [first, second]
    rows = []
    for section, pairs in difference.items():
        for key in ordered(pairs, runs):
            rows.append([section, key, *map(_cell, pairs[key])])
    head = ["", "key", *(f"{run.short_id} {run.name}" for run in runs)]
    return markdown_table(head, rows, "l") if rows else "no differences"


def format_number(value: float | None) -> str:
    if value is None:
        return ""
    if math.isfinite(value) and value == int(value) and abs(value) < 1e9:
        return str(int(value))
    return f"{value:.4g}"


def format_time(ms: int | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(ms / 1000)) if ms else ""


def ordered(metrics: Iterable[str], runs: Sequence[RunRow]) -> list[str]:
    """Metrics in the order in which they are shown: objectives of the runs, main metrics, the others by name."""
    objectives = [(run.objective or "").partition("/")[2] for run in runs]
    first = list(dict.fromkeys([*objectives, *MAIN]))

    def rank(key: str) -> tuple[int, int, str]:
        split, _, name = key.partition("/")
        return _position(first, name), _position(_SPLITS, split), key

    return sorted(metrics, key=rank)


def shorten(text: str, limit: int = 100) -> str:
    return truncate(" ".join(text.split()), limit)


def _facts(run: RunRow) -> dict[str, str]:
    end = time.time() * 1000 if run.status == "RUNNING" else run.end
    duration = ""
    if run.start is not None and end is not None:
        duration = str(timedelta(seconds=max(0, round((end - run.start) / 1000))))
    facts = {
        "name": run.name,
        "data": run.params.get("choices.data", ""),
        "status": run.status,
        "started": format_time(run.start),
        "took": duration,
        "folder": run.folder and display_path(run.folder),
        "experiment": run.experiment,
        "parent": run.parent,
        "MLflow run id": run.run_id,
    }
    for key in ordered(run.best, [run]):
        facts[f"{key} (best)"] = format_number(run.best[key])
    return {name: text or "" for name, text in facts.items()}


def _list_row(run: RunRow, metrics: Sequence[str], params: Sequence[str]) -> dict[str, str]:
    facts = _facts(run)
    row = {"run": run.short_id}
    for name in ("name", "data", "status", "started", "took", "folder"):
        row[name] = facts[name]
    for key in params:
        row[key] = shorten(run.params.get(clean(key), ""), 40)
    for key in metrics:
        label = f"{key} (best)"
        if label in facts:
            row[label] = facts[label]
        else:
            row[key] = format_number(run.metrics.get(clean(key)))
    return row


def _table(names: Sequence[str], rows: Iterable[Mapping[str, str]]) -> str:
    return markdown_table(names, [[row.get(name, "") for name in names] for row in rows], "l")


def _pair_table(head: Sequence[str], values: Mapping[str, str]) -> str:
    """A row for each value that is not empty; "" if there is none."""
    rows = [[key, shorten(value)] for key, value in values.items() if value]
    return markdown_table(head, rows, "l") if rows else ""


def _cell(value: str | float | None) -> str:
    return shorten(value) if isinstance(value, str) else format_number(value)


def _position(names: Sequence[str], name: str) -> int:
    return names.index(name) if name in names else len(names)
