"""Formats runs as text: one run with all details, two by their differences."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from mlxlab.markdown import markdown_table
from mlxlab.metric_names import VALID
from mlxlab.tracking.mlflow.names import truncate
from mlxlab.tracking.runs.diff import Pairs
from mlxlab.tracking.runs.reader import MAIN, RunRow

_SPLITS = ("valid", "test", "train")  # in the order in which they are shown


def format_run(run: RunRow) -> str:
    """One run: its facts, its data, its metrics, its parameters, its tags."""
    metrics = {key: format_number(run.metrics[key]) for key in ordered(run.metrics, [run])}
    return _join(
        _pair_table(["run", run.uid or run.run_id], _facts(run)),
        _pair_table(["data", "digest"], run.datasets),
        _pair_table(["metric", "last value"], metrics),
        _pair_table(["param", "value"], dict(sorted(run.params.items()))),
        _pair_table(["tag", "value"], dict(sorted(run.tags.items()))),
    )


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


def best_label(key: str) -> str:
    return f"{key} (best)"


def last_label(key: str) -> str:
    return f"{key} (last)"


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


def ordered(keys: Iterable[str], runs: Sequence[RunRow]) -> list[str]:
    """Metrics in the order in which they are shown: objectives of the runs, main metrics, the others by name."""
    objectives = {name_of(run.objective or "") for run in runs}

    def rank(key: str) -> tuple[bool, int, int, str]:
        name = name_of(key)
        split = key.removesuffix(f"/{name}")
        return name not in objectives, _position(MAIN, name), _position(_SPLITS, split), key

    return sorted(keys, key=rank)


def name_of(metric: str) -> str:
    """The name of a metric without its split."""
    return metric.partition("/")[2]


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
