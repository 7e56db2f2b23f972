"""Formats runs as text: one run with all details, several runs side by side, two by their differences."""

import math
import time
from collections.abc import Iterable, Mapping
from datetime import timedelta

from mlxlab.markdown import markdown_table
from mlxlab.metric_names import VALID
from mlxlab.tracking.mlflow.client import truncate
from mlxlab.tracking.runs.diff import RunDiff
from mlxlab.tracking.runs.objectives import MAIN, best_label, last_label, objectives
from mlxlab.tracking.runs.reader import MetricRange, RunRow

_SPLITS = ("valid", "test", "train")  # in the order in which they are shown


def format_run(run: RunRow, ranges: Mapping[str, MetricRange], datasets: Mapping[str, str]) -> str:
    """One run: its facts, its data, the range of each metric, its parameters, its tags."""
    facts = {
        "MLflow run id": run.run_id if run.uid else "",
        "name": run.name,
        "experiment": run.experiment,
        "status": run.status,
    }
    facts |= {
        best_label(key): format_number(value)
        for key in ordered(run.best, [run])
        for value in [run.best[key]]
    }
    facts |= {"started": format_time(run.start), "took": format_duration(run)}
    facts |= {"folder": run.folder or "", "parent": run.parent or ""}
    sections = [
        markdown_table(
            ["run", run.uid or run.run_id],
            [[key, value] for key, value in facts.items() if value],
            "l",
        )
    ]
    if datasets:
        sections.append(
            markdown_table(["data", "digest"], [[*item] for item in datasets.items()], "l")
        )
    metrics = [
        [key, *map(format_number, (run.metrics.get(key), low, high)), str(points), str(last_step)]
        for key in ordered(ranges, [run])
        for points, low, high, last_step in [ranges[key]]
    ]
    if metrics:
        sections.append(
            markdown_table(["metric", "last", "min", "max", "points", "last step"], metrics)
        )
    for title, values in (("param", run.params), ("tag", run.tags)):
        if values:
            rows = [[key, shorten(values[key])] for key in sorted(values)]
            sections.append(markdown_table([title, "value"], rows, "l"))
    return "\n\n".join(sections)


def format_comparison(runs: list[RunRow]) -> str:
    """The main metrics of the best evaluations, the parameters that differ and the latest metrics, a column per run."""
    rows = [["name", *(run.name for run in runs)], ["status", *(run.status for run in runs)]]
    best, latest = (
        {key for run in runs for key in run.best},
        {key for run in runs for key in run.metrics},
    )
    for key in ordered(best, runs):
        rows.append([best_label(key), *(format_number(run.best.get(key)) for run in runs)])
    for key in sorted({key for run in runs for key in run.params}):
        values = [run.params.get(key, "-") for run in runs]
        if len(set(values)) > 1:
            rows.append([key, *(shorten(value, 32) for value in values)])
    for key in ordered(latest, runs):
        rows.append([_latest_label(key), *(format_number(run.metrics.get(key)) for run in runs)])
    return markdown_table(["run", *(run.short_id for run in runs)], rows)


def _latest_label(key: str) -> str:
    """Metrics of the test rows are of the best weights, those of training not of an evaluation."""
    return last_label(key) if key.startswith(VALID) else key


def format_diff(first: RunRow, second: RunRow, difference: RunDiff) -> str:
    """The differences of two runs, a table for each section that has any."""
    head = [f"{run.short_id} {run.name}" for run in (first, second)]
    sections = []
    for title, values in (
        ("config", difference.config),
        ("data", difference.data),
        ("code", difference.code),
    ):
        rows = [[key, *(shorten(value or "-") for value in pair)] for key, pair in values.items()]
        if rows:
            sections.append(markdown_table([title, *head], rows, "l"))
    runs, best, latest = [first, second], difference.best, difference.metrics
    metrics = {best_label(key): best[key] for key in ordered(best, runs)}
    metrics |= {_latest_label(key): latest[key] for key in ordered(latest, runs)}
    metric_rows = []
    for label, (old, new) in metrics.items():
        change = "" if old is None or new is None else f"{new - old:+.4g}"
        metric_rows.append([label, format_number(old), format_number(new), change])
    if metric_rows:
        sections.append(markdown_table(["metric", *head, "difference"], metric_rows))
    return "\n\n".join(sections) or "no differences"


def format_number(value: float | None) -> str:
    if value is None:
        return ""
    if math.isfinite(value) and value == int(value) and abs(value) < 1e9:
        return str(int(value))
    return f"{value:.4g}"


def format_time(ms: int | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(ms / 1000)) if ms else ""


def format_duration(run: RunRow) -> str:
    end = time.time() * 1000 if run.status == "RUNNING" else run.end
    if run.start is None or end is None:
        return ""
    return str(timedelta(seconds=max(0, round((end - run.start) / 1000))))


def ordered(keys: Iterable[str], runs: list[RunRow]) -> list[str]:
    """Metrics in the order in which they are shown: objectives of the runs, main metrics, the others by name."""
    first = objectives(runs)

    def rank(key: str) -> tuple[bool, int, int, str]:
        split, _, name = key.partition("/")
        main = MAIN.index(name) if name in MAIN else len(MAIN)
        return (
            key not in first,
            main,
            _SPLITS.index(split) if split in _SPLITS else len(_SPLITS),
            key,
        )

    return sorted(keys, key=rank)


def shorten(text: str, limit: int = 100) -> str:
    return truncate(" ".join(text.split()), limit)
