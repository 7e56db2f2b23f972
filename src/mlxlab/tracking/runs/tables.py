"""Formats runs as text: a list, one run with all details, several runs side by side."""

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from mlxlab.tracking.mlflow.client import truncate
from mlxlab.tracking.runs.reader import MetricRange, RunRow

MAX_METRICS = 4  # columns of a list
_RESULTS = ("test/", "valid/", "train/", "")  # prefixes of metrics, in the order in which they are shown


def format_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, right: int = 99) -> str:
    """Aligned columns; those from index `right` on are aligned to the right."""
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(w) if i >= right else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def format_list(runs: list[RunRow], metrics: list[str] | None) -> str:
    """One line per run.

    Args:
        metrics: columns; None takes those that most of the runs have.
    """
    keys = metrics or _default_metrics(runs)
    rows = [
        [
            *(run.run_id[:8], run.name, run.experiment, run.status),
            *(_format_time(run.start), _format_duration(run), (run.parent or "")[:8]),
            *(format_number(run.metrics.get(key)) for key in keys),
        ]
        for run in runs
    ]
    return format_table(["run", "name", "experiment", "status", "started", "took", "parent", *keys], rows, right=7)


def format_run(run: RunRow, ranges: Mapping[str, MetricRange]) -> str:
    """One run: its facts, its parameters, the range of each metric, its tags."""
    facts = {
        "run": run.run_id,
        "name": run.name,
        "experiment": run.experiment,
        "status": run.status,
        "started": _format_time(run.start),
        "took": _format_duration(run),
        "folder": run.folder,
        "parent": run.parent,
    }
    sections = [format_table(["", ""], [[key, value] for key, value in facts.items() if value]).lstrip("\n")]
    metrics = [
        [key, *map(format_number, (run.metrics.get(key), low, high)), str(points), str(last_step)]
        for key, (points, low, high, last_step) in sorted(ranges.items())
    ]
    if metrics:
        sections.append(format_table(["metric", "latest", "min", "max", "points", "last step"], metrics, right=1))
    for title, values in (("param", run.params), ("tag", run.tags)):
        if values:
            sections.append(format_table([title, "value"], [[key, _shorten(values[key])] for key in sorted(values)]))
    return "\n\n".join(sections)


def format_comparison(runs: list[RunRow]) -> str:
    """The parameters that differ and the latest metrics, one column per run."""
    rows = [["name", *(run.name for run in runs)], ["status", *(run.status for run in runs)]]
    for key in sorted({key for run in runs for key in run.params}):
        values = [run.params.get(key, "-") for run in runs]
        if len(set(values)) > 1:
            rows.append([key, *(_shorten(value, 32) for value in values)])
    for key in sorted({key for run in runs for key in run.metrics}):
        rows.append([key, *(format_number(run.metrics.get(key)) for run in runs)])
    return format_table(["", *(run.run_id[:8] for run in runs)], rows, right=1)


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
    seconds = max(0, round((end - run.start) / 1000))
    if seconds < 60:
        return f"{seconds} s"
    hours, minutes = divmod(seconds // 60, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds % 60:02d} s"


def _default_metrics(runs: list[RunRow]) -> list[str]:
    """The metrics that most of the runs have; results first."""
    counts = Counter(key for run in runs for key in run.metrics)
    groups = {key: next(i for i, prefix in enumerate(_RESULTS) if key.startswith(prefix)) for key in counts}
    return sorted(counts, key=lambda key: (groups[key], -counts[key], key))[:MAX_METRICS]


def _shorten(text: str, limit: int = 100) -> str:
    return truncate(" ".join(text.split()), limit)
