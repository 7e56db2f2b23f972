"""The configurations and the jobs of a sweep as rows of values by column, for pages, terminals and CSV files."""

import math
from collections.abc import Sequence
from itertools import chain
from typing import TypeAlias, get_args

from mlxlab.analysis.sweeps.sweep_jobs import Configuration, State, Sweep, SweepJob, short_names
from mlxlab.stats.ranking import Ranking
from mlxlab.terminal.wording import counted, one_line
from mlxlab.views.escape import terminal
from mlxlab.views.numbers import number
from mlxlab.views.tables import Column, Table

Row: TypeAlias = dict[str, str | float | None]


def ranking_rows(
    sweep: Sweep, configurations: Sequence[Configuration], ranking: Ranking, *, short: bool = False
) -> list[Row]:
    """A row for each configuration, the best one first; `short` shows few digits of the values of keys."""
    rows: list[Row] = []
    for place, entry in enumerate(ranking.entries, 1):
        each = configurations[entry.index]
        row: Row = {"rank": place, sweep.objective: entry.mean}
        row |= each.point
        if short:
            row |= each.labels
        row |= {"low": entry.mean - entry.margin, "high": entry.mean + entry.margin}
        row |= {f"{sweep.repetition}s": entry.count, "behind the best": entry.lead, "p": entry.p}
        row["standing"] = entry.standing
        rows.append({name: _known(value) for name, value in row.items()})
    return rows


def job_rows(sweep: Sweep, jobs: Sequence[SweepJob]) -> list[Row]:
    fixed = {text.partition("=")[0] for text in sweep.fixed}
    keys = dict.fromkeys(chain.from_iterable(job.overrides for job in sweep.jobs))
    rows: list[Row] = []
    for job in jobs:
        row: Row = {"job": job.number, "state": job.state}
        row |= {key: job.overrides.get(key) for key in keys if key not in fixed}
        row[sweep.objective] = job.value
        rows.append({**row, "seconds": f"{job.seconds:.1f}", "reason": job.reason})
    return rows


def as_table(rows: Sequence[Row], first: Sequence[str] = ()) -> Table:
    """The columns in which any row has something.

    Args:
        first: names of columns; the others follow in the order of the rows.
    """
    names = []
    for name in dict.fromkeys([*first, *rows[0]]):
        if any(row[name] not in (None, "") for row in rows):
            names.append(name)
    short = short_names(names)
    columns = []
    for name in names:
        kind = "prose" if name == "reason" else "number"
        if any(isinstance(row[name], str) for row in rows) and name != "reason":
            kind = "text"
        columns.append(Column(short[name] if kind == "text" else name, kind))
    return Table(columns, [[_cell(row[name]) for name in names] for row in rows])


def count_jobs(sweep: Sweep) -> str:
    counts = [f"{sweep.count(state)} {state}" for state in get_args(State) if sweep.count(state)]
    return f"{counted(len(sweep.jobs), 'job')}: {', '.join(counts) or 'none'}"


def describe_jobs(sweep: Sweep) -> str:
    """A table of the jobs for a terminal, and how many came to what."""
    lines: list[str] = []
    if sweep.jobs:
        table = as_table(job_rows(sweep, sweep.jobs))
        lines.append(table.markdown(terminal))
        if table.hidden:
            lines.append(f"... and {table.hidden} more")
    return "\n".join([*lines, "", count_jobs(sweep)])


def _known(value: str | float | None) -> str | float | None:
    if isinstance(value, float) and math.isnan(value):
        return None
    return value


def _cell(value: str | float | None) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return number(value)
    return one_line(str(value), 300)
