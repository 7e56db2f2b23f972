"""The configurations and the jobs of a sweep as rows of cells by column, for pages, terminals and CSV files."""

import math
from collections.abc import Callable, Sequence
from typing import get_args

from mlxlab.analysis.sweeps.sweep_jobs import Configuration, State, Sweep, SweepJob, short_names
from mlxlab.analysis.sweeps.verdict import rounded
from mlxlab.markdown import markdown_table
from mlxlab.stats.ranking import Ranking
from mlxlab.views.numbers import number
from mlxlab.views.tables import Column, Table
from mlxlab.wording import counted, one_line

_MAX_LISTED = 100
_TEXTS = ("state", "standing", "reason")

Row = dict[str, str]


def ranking_rows(
    sweep: Sweep, configurations: Sequence[Configuration], ranking: Ranking, *, full: bool
) -> list[Row]:
    """A row for each configuration, the best one first; numbers in full precision or as a reader wants them."""
    show = _exact if full else number
    show_lead = _exact if full else rounded
    show_p = _exact if full else "{:.2g}".format
    rows = []
    for place, entry in enumerate(ranking.entries, 1):
        each = configurations[entry.index]
        values_of_keys = each.point if full else each.labels
        row = {"rank": str(place), sweep.objective: show(entry.mean)}
        row |= {key: values_of_keys[key] for key in sweep.swept}
        row["interval"] = ""
        if not math.isnan(entry.margin):
            row["interval"] = (
                f"{show(entry.mean - entry.margin)} to {show(entry.mean + entry.margin)}"
            )
        row[f"{sweep.repetition}s"] = str(entry.count)
        row["behind the best"] = "" if place == 1 else show_lead(entry.lead)
        row["p"] = "" if math.isnan(entry.p) else show_p(entry.p)
        row["standing"] = entry.standing
        for name in sweep.objectives[1:]:
            values = each.results(name).values()
            row[f"mean {name}"] = show(sum(values) / len(values)) if values else ""
        rows.append(row)
    return rows


def job_rows(
    sweep: Sweep, jobs: Sequence[SweepJob], show: Callable[[float], str] = repr
) -> list[Row]:
    """A row for each job; `show` writes its results."""
    fixed = {text.partition("=")[0] for text in sweep.fixed}
    keys = dict.fromkeys(key for job in sweep.jobs for key in job.overrides if key not in fixed)
    rows = []
    for job in jobs:
        row = {"job": str(job.number), "state": job.state}
        row |= {key: job.overrides.get(key, "") for key in keys}
        for name in sweep.objectives:
            row[name] = show(job.values[name]) if name in job.values else ""
        rows.append({**row, "seconds": f"{job.seconds:.1f}", "reason": job.reason})
    return rows


def as_table(sweep: Sweep, rows: Sequence[Row], first: Sequence[str]) -> Table:
    """The columns in which any row has something.

    Args:
        first: names of columns; the others follow in the order of the rows.
    """
    names = [name for name in dict.fromkeys([*first, *rows[0]]) if any(row[name] for row in rows)]
    overridden = {key for job in sweep.jobs for key in job.overrides}
    short = short_names([name for name in names if name in overridden])
    columns = []
    for name in names:
        kind = "number"
        if name == "reason":
            kind = "prose"
        elif name in overridden or name in _TEXTS:
            kind = "text"
        columns.append(Column(short.get(name, name), kind))
    return Table(columns, [[row[name] for name in names] for row in rows])


def count_jobs(sweep: Sweep) -> str:
    counts = [f"{sweep.count(state)} {state}" for state in get_args(State) if sweep.count(state)]
    return f"{counted(len(sweep.jobs), 'job')}: {', '.join(counts) or 'none'}"


def describe_jobs(sweep: Sweep, *, by_value: bool = False) -> str:
    """A table of the jobs for a terminal, of many first those that did not finish, and how many came to what."""
    jobs = list(sweep.jobs)
    if by_value:
        sign = 1 if sweep.minimised else -1
        jobs.sort(key=lambda job: sign * job.values.get(sweep.objective, sign * math.inf))
    elif len(jobs) > _MAX_LISTED:
        jobs.sort(key=lambda job: job.state == "finished")
    lines = []
    rows = job_rows(sweep, jobs[:_MAX_LISTED], number)
    if rows:
        cells = [[one_line(cell, 120) for cell in row.values()] for row in rows]
        lines = [markdown_table(list(rows[0]), cells, "l")]
    if len(jobs) > _MAX_LISTED:
        lines.append(f"... and {len(jobs) - _MAX_LISTED} more")
    return "\n".join([*lines, "", count_jobs(sweep)])


def _exact(value: float) -> str:
    return repr(float(value))
