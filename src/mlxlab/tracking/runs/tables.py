"""Runs as text: a list, one run in full, several side by side."""

import math
import time
from collections.abc import Iterable, Sequence

from mlxlab.tracking.runs.sqlite_reader import RunRow

MOST_METRICS = 4  # columns of a list
_FIRST = ("test/", "valid/", "train/")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, right: int = 99) -> str:
    """Aligned columns; those from number `right` on are set to the right."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.rjust(w) if i >= right else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def listing(runs: list[RunRow], metrics: list[str] | None) -> str:
    keys = metrics or _telling(runs)
    head = ["run", "name", "experiment", "status", "started", "took", "parent", *keys]
    rows = [
        [
            run.run_id[:8],
            run.name,
            run.experiment,
            run.status,
            moment(run.start),
            duration(run),
            (run.parent or "")[:8],
            *(number(run.metrics.get(key)) for key in keys),
        ]
        for run in runs
    ]
    return table(head, rows, right=7)


def full(run: RunRow, spans: dict[str, tuple[int, float, float, int]]) -> str:
    """One run: what it is, its params, the range of each metric, its tags."""
    facts = [
        ["run", run.run_id],
        ["name", run.name],
        ["experiment", run.experiment],
        ["status", run.status],
        ["started", moment(run.start)],
        ["took", duration(run)],
        ["folder", run.folder or ""],
        ["parent", run.parent or ""],
    ]
    rows = [
        [key, number(run.metrics.get(key)), number(low), number(high), str(count), str(step)]
        for key, (count, low, high, step) in sorted(spans.items())
    ]
    parts = [table(["", ""], (fact for fact in facts if fact[1])).lstrip("\n")]
    if rows:
        parts.append(table(["metric", "latest", "smallest", "largest", "rows", "last step"], rows, right=1))
    for title, values in (("param", run.params), ("tag", run.tags)):
        if values:
            parts.append(table([title, "value"], ([key, _short(values[key])] for key in sorted(values))))
    return "\n\n".join(parts)


def comparison(runs: list[RunRow]) -> str:
    """What differs: params and latest metrics, a column a run."""
    head = ["", *(run.run_id[:8] for run in runs)]
    rows = [["name", *(run.name for run in runs)], ["status", *(run.status for run in runs)]]
    for key in sorted({key for run in runs for key in run.params}):
        values = [run.params.get(key, "-") for run in runs]
        if len(set(values)) > 1:
            rows.append([key, *(_short(value, 32) for value in values)])
    for key in sorted({key for run in runs for key in run.metrics}):
        rows.append([key, *(number(run.metrics.get(key)) for run in runs)])
    return table(head, rows, right=1)


def moment(ms: int | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(ms / 1000)) if ms else ""


def duration(run: RunRow) -> str:
    if run.start is None or (run.end is None and run.status != "RUNNING"):
        return ""
    end = time.time() * 1000 if run.status == "RUNNING" or run.end is None else run.end
    seconds = max(0, round((end - run.start) / 1000))
    if seconds < 60:
        return f"{seconds} s"
    hours, minutes = divmod(seconds // 60, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds % 60:02d} s"


def number(value: float | None) -> str:
    if value is None:
        return ""
    if math.isfinite(value) and value == int(value) and abs(value) < 1e9:
        return str(int(value))
    return f"{value:.4g}"


def _telling(runs: list[RunRow]) -> list[str]:
    """The metrics that most of the runs have; results before progress."""
    counts: dict[str, int] = {}
    for run in runs:
        for key in run.metrics:
            counts[key] = counts.get(key, 0) + 1

    def place(key: str) -> tuple[int, int, str]:
        first = next((i for i, start in enumerate(_FIRST) if key.startswith(start)), len(_FIRST))
        return first, -counts[key], key

    return sorted(counts, key=place)[:MOST_METRICS]


def _short(text: str, most: int = 100) -> str:
    text = " ".join(str(text).split())
    return text if len(text) <= most else text[: most - 3] + "..."
