"""Formats runs as text: one run with all details, several runs side by side, two by their differences."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from mlxlab.markdown import markdown_table
from mlxlab.metric_names import VALID
from mlxlab.tracking.mlflow.client import truncate
from mlxlab.tracking.runs.diff import Pairs
from mlxlab.tracking.runs.objectives import MAIN, best_label, last_label, objectives
from mlxlab.tracking.runs.reader import MetricRange, RunRow

_SPLITS = ("valid", "test", "train")  # in the order in which they are shown


def format_run(run: RunRow, ranges: Mapping[str, MetricRange], datasets: Mapping[str, str]) -> str:
    """One run: its facts, its data, the range of each metric, its parameters, its tags."""
    metrics = []
    for key in ordered(ranges, [run]):
        history = ranges[key]
        values = (run.metrics.get(key), history.min, history.max)
        metrics.append(
            [key, *map(format_number, values), str(history.points), str(history.last_step)]
        )
    head = ["metric", "last", "min", "max", "points", "last step"]
    return _join(
        _pair_table(["run", run.uid or run.run_id], _facts(run)),
        _pair_table(["data", "digest"], datasets),
        markdown_table(head, metrics) if metrics else "",
        _pair_table(["param", "value"], dict(sorted(run.params.items()))),
        _pair_table(["tag", "value"], dict(sorted(run.tags.items()))),
    )


def format_comparison(runs: list[RunRow]) -> str:
    """The main metrics of the best evaluations, the parameters that differ and the latest metrics, a column per run."""
    rows = [["name", *(run.name for run in runs)], ["status", *(run.status for run in runs)]]
    for key in ordered({key for run in runs for key in run.best}, runs):
        rows.append([best_label(key), *(format_number(run.best.get(key)) for run in runs)])
    for key in sorted({key for run in runs for key in run.params}):
        values = [run.params.get(key, "-") for run in runs]
        if len(set(values)) > 1:
            rows.append([key, *(shorten(value, 32) for value in values)])
    for key in ordered({key for run in runs for key in run.metrics}, runs):
        rows.append([_latest_label(key), *(format_number(run.metrics.get(key)) for run in runs)])
    return markdown_table(["run", *(run.short_id for run in runs)], rows)


def format_diff(first: RunRow, second: RunRow, difference: Mapping[str, Pairs]) -> str:
    """The differences of two runs, a table for each section that has any."""
    runs = [first, second]
    head = [f"{run.short_id} {run.name}" for run in runs]
    sections = []
    for title in ("config", "data", "code"):
        rows = []
        for key, pair in difference[title].items():
            rows.append([key, *(shorten(value or "-") for value in pair)])
        if rows:
            sections.append(markdown_table([title, *head], rows, "l"))
    metrics = []
    for title, label in (("best", best_label), ("metrics", _latest_label)):
        for key in ordered(difference[title], runs):
            old, new = difference[title][key]
            change = "" if old is None or new is None else f"{new - old:+.4g}"
            metrics.append([label(key), format_number(old), format_number(new), change])
    if metrics:
        sections.append(markdown_table(["metric", *head, "difference"], metrics))
    return _join(*sections) or "no differences"


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
        return key not in first, _position(MAIN, name), _position(_SPLITS, split), key

    return sorted(keys, key=rank)


def shorten(text: str, limit: int = 100) -> str:
    return truncate(" ".join(text.split()), limit)


def _facts(run: RunRow) -> dict[str, str]:
    facts = {
        "MLflow run id": run.run_id if run.uid else "",
        "name": run.name,
        "experiment": run.experiment,
        "status": run.status,
    }
    for key in ordered(run.best, [run]):
        facts[best_label(key)] = format_number(run.best[key])
    facts |= {
        "started": format_time(run.start),
        "took": format_duration(run),
        "folder": run.folder or "",
        "parent": run.parent or "",
    }
    return {name: text for name, text in facts.items() if text}


def _pair_table(head: list[str], values: Mapping[str, str]) -> str:
    """A row for each key; "" if there is none."""
    rows = [[key, shorten(value)] for key, value in values.items()]
    return markdown_table(head, rows, "l") if rows else ""


def _join(*sections: str) -> str:
    return "\n\n".join(filter(None, sections))


def _latest_label(key: str) -> str:
    """Metrics of the test rows are of the best weights, those of training not of an evaluation."""
    return last_label(key) if key.startswith(VALID) else key


def _position(names: Sequence[str], name: str) -> int:
    return names.index(name) if name in names else len(names)
