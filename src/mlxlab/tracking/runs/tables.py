"""Formats runs as text: a list, one run with all details, several runs side by side, two by their differences."""

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

from mlxlab.markdown import markdown_table
from mlxlab.tracking.mlflow.client import clean, truncate
from mlxlab.tracking.runs.diff import RunDiff
from mlxlab.tracking.runs.reader import MetricRange, RunRow

MAX_METRICS = 4  # columns of a list
_MAIN = ("accuracy", "loss", "perplexity", "bits_per_byte", "r2", "rmse", "f1_macro", "roc_auc")  # shown first
_SPLITS = ("valid", "test", "train")  # in the order in which they are shown


class Columns(NamedTuple):
    """What a list shows of each run, besides its facts."""

    metrics: Sequence[str] | None = None  # latest values; None: those that most of the runs have
    params: Sequence[str] = ()
    best: Mapping[str, Mapping[str, float]] = {}  # metric -> run id -> best value
    folder: bool = False


def format_list(runs: list[RunRow], columns: Columns) -> str:
    """One line per run."""
    metrics = _default_metrics(runs) if columns.metrics is None else columns.metrics
    ids = {run.run_id: run.short_id for run in runs}
    rows = [
        [
            *(run.short_id, run.name, run.experiment, run.status),
            *(_format_time(run.start), _format_duration(run), ids.get(run.parent or "", (run.parent or "")[:8])),
            *([run.folder or ""] if columns.folder else []),
            *(_shorten(run.params.get(clean(key), ""), 40) for key in columns.params),
            *(format_number(run.metrics.get(clean(key))) for key in metrics),
            *(format_number(values.get(run.run_id)) for values in columns.best.values()),
        ]
        for run in runs
    ]
    head = ["run", "name", "experiment", "status", "started", "took", "parent", *["folder"] * columns.folder]
    left = "l" * (len(head) + len(columns.params))
    best = [f"best {key}" for key in columns.best]
    return markdown_table([*head, *columns.params, *metrics, *best], rows, f"{left}r")


def format_run(run: RunRow, ranges: Mapping[str, MetricRange], datasets: Mapping[str, str]) -> str:
    """One run: its facts, its data, the range of each metric, its parameters, its tags."""
    facts = {
        "MLflow run id": run.run_id if run.uid else "",
        "name": run.name,
        "experiment": run.experiment,
        "status": run.status,
    }
    facts |= {"started": _format_time(run.start), "took": _format_duration(run)}
    facts |= {"folder": run.folder or "", "parent": run.parent or ""}
    sections = [
        markdown_table(["run", run.uid or run.run_id], [[key, value] for key, value in facts.items() if value], "l")
    ]
    if datasets:
        sections.append(markdown_table(["data", "digest"], [[*item] for item in datasets.items()], "l"))
    metrics = [
        [key, *map(format_number, (run.metrics.get(key), low, high)), str(points), str(last_step)]
        for key in _ordered(ranges, [run])
        for points, low, high, last_step in [ranges[key]]
    ]
    if metrics:
        sections.append(markdown_table(["metric", "latest", "min", "max", "points", "last step"], metrics))
    for title, values in (("param", run.params), ("tag", run.tags)):
        if values:
            rows = [[key, _shorten(values[key])] for key in sorted(values)]
            sections.append(markdown_table([title, "value"], rows, "l"))
    return "\n\n".join(sections)


def format_comparison(runs: list[RunRow]) -> str:
    """The parameters that differ and the latest metrics, one column per run."""
    rows = [["name", *(run.name for run in runs)], ["status", *(run.status for run in runs)]]
    for key in sorted({key for run in runs for key in run.params}):
        values = [run.params.get(key, "-") for run in runs]
        if len(set(values)) > 1:
            rows.append([key, *(_shorten(value, 32) for value in values)])
    for key in _ordered({key for run in runs for key in run.metrics}, runs):
        rows.append([key, *(format_number(run.metrics.get(key)) for run in runs)])
    return markdown_table(["run", *(run.short_id for run in runs)], rows)


def format_diff(first: RunRow, second: RunRow, difference: RunDiff) -> str:
    """The differences of two runs, a table for each section that has any."""
    head = [f"{run.short_id} {run.name}" for run in (first, second)]
    sections = []
    for title, values in (("config", difference.config), ("data", difference.data), ("code", difference.code)):
        rows = [[key, *(_shorten(value or "-") for value in pair)] for key, pair in values.items()]
        if rows:
            sections.append(markdown_table([title, *head], rows, "l"))
    rows = []
    for key, (old, new) in difference.metrics.items():
        change = "" if old is None or new is None else f"{new - old:+.4g}"
        rows.append([key, format_number(old), format_number(new), change])
    if rows:
        sections.append(markdown_table(["metric", *head, "difference"], rows))
    return "\n\n".join(sections) or "no differences"


def format_number(value: float | None) -> str:
    if value is None:
        return ""
    if math.isfinite(value) and value == int(value) and abs(value) < 1e9:
        return str(int(value))
    return f"{value:.4g}"


def _format_time(ms: int | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(ms / 1000)) if ms else ""


def _format_duration(run: RunRow) -> str:
    end = time.time() * 1000 if run.status == "RUNNING" else run.end
    if run.start is None or end is None:
        return ""
    return str(timedelta(seconds=max(0, round((end - run.start) / 1000))))


def _default_metrics(runs: list[RunRow]) -> list[str]:
    """The objectives first, then the main metrics that most of the runs have."""
    counts = Counter(key for run in runs for key in run.metrics)
    names = _ordered(counts, runs)
    return sorted(names, key=lambda key: 2 * counts[key] < len(runs))[:MAX_METRICS]  # stable


def _ordered(keys: Iterable[str], runs: list[RunRow]) -> list[str]:
    """Metrics in the order in which they are shown: objectives of the runs, main metrics, the others by name."""
    objectives = {clean(run.tags["objective"]) for run in runs if "objective" in run.tags}

    def rank(key: str) -> tuple[bool, int, int, str]:
        split, _, name = key.partition("/")
        main = _MAIN.index(name) if name in _MAIN else len(_MAIN)
        return key not in objectives, main, _SPLITS.index(split) if split in _SPLITS else len(_SPLITS), key

    return sorted(keys, key=rank)


def _shorten(text: str, limit: int = 100) -> str:
    return truncate(" ".join(text.split()), limit)
