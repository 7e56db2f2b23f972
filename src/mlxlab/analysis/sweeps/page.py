"""The report of a sweep as one HTML page: readable without scripts, and without a request to anywhere."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, get_args

from mlxlab.analysis.sweeps.importance import Importance
from mlxlab.analysis.sweeps.ranking import Ranking
from mlxlab.analysis.sweeps.sweep_jobs import Configuration, State, Sweep, SweepJob
from mlxlab.analysis.sweeps.verdict import describe_method, number

MAX_ROWS = 200
_TITLES: dict[State, str] = {
    "failed": "Failed jobs",
    "pruned": "Pruned jobs",
    "paused": "Paused jobs",
    "unfinished": "Unfinished jobs",
}
_SORT = """
for (const head of document.querySelectorAll("th")) head.addEventListener("click", () => {
  const body = head.closest("table").tBodies[0], column = head.cellIndex, up = head.dataset.up !== "1";
  head.dataset.up = up ? "1" : "0";
  const text = row => row.cells[column].textContent, value = row => parseFloat(text(row));
  const compare = (a, b) => isNaN(value(a)) || isNaN(value(b)) ? text(a).localeCompare(text(b)) : value(a) - value(b);
  for (const row of [...body.rows].sort((a, b) => up ? compare(a, b) : compare(b, a))) body.append(row);
});
"""


class Column(NamedTuple):
    name: str
    number: bool = False
    long: bool = False


def render_page(
    sweep: Sweep,
    configurations: Sequence[Configuration],
    ranking: Ranking,
    importance: Importance,
    verdict: Sequence[str],
    images: Mapping[str, bytes],
) -> str:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    template = Path(__file__).with_name("page.html.jinja").read_text(encoding="utf-8")
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(template)
    heads, rows = ranking_table(sweep, configurations, ranking)
    digest = base64.b64encode(hashlib.sha256(_SORT.encode()).digest()).decode()
    return page.render(
        title=f"Sweep {sweep.name}",
        counts=count_jobs(sweep),
        fixed=" ".join(sweep.fixed),
        verdict=verdict,
        won=ranking.winner is not None,
        ranking={
            "heads": heads,
            "rows": rows[:MAX_ROWS],
            "classes": [each.standing.split(" ")[0] for each in ranking.entries],
            "hidden": len(rows[MAX_ROWS:]),
        },
        method=describe_method(ranking, sweep.test_ratio, sweep.repetitions),
        importance=importance.note,
        images={"ranking": "", "importance": "", "parallel": "", "curves": ""}
        | {name: base64.b64encode(png).decode() for name, png in images.items()},
        sections=[section for state, title in _TITLES.items() if (section := _section(sweep, state, title))],
        script=Markup(_SORT),
        script_hash=f"sha256-{digest}",
    )


def count_jobs(sweep: Sweep) -> str:
    counts = [f"{sweep.count(state)} {state}" for state in get_args(State) if sweep.count(state)]
    return f"{len(sweep.jobs)} job{'s' * (len(sweep.jobs) != 1)}: {', '.join(counts) or 'none'}"


def ranking_table(
    sweep: Sweep, configurations: Sequence[Configuration], ranking: Ranking
) -> tuple[list[Column], list[list[str]]]:
    """A row for each configuration, the best one first."""
    heads = [Column("rank", True), *(Column(key) for key in sweep.swept), Column("seeds", True)]
    heads += [Column(name, True) for name in (sweep.objective, "interval", "behind the best", "p")]
    heads += [Column("standing"), *(Column(f"mean {name}", True) for name in sweep.objectives[1:])]
    rows = []
    for place, entry in enumerate(ranking.entries, 1):
        each = configurations[entry.index]
        low, high = entry.mean - entry.margin, entry.mean + entry.margin
        interval = f"{number(low)} to {number(high)}" if low == low else ""
        lead, p = (number(entry.lead) if place > 1 else ""), (f"{entry.p:.2g}" if entry.p == entry.p else "")
        others = [each.results(name).values() for name in sweep.objectives[1:]]
        more = [number(sum(values) / len(values)) if values else "" for values in others]
        start = [str(place), *(each.point[key] for key in sweep.swept), str(entry.count), number(entry.mean)]
        rows.append([*start, interval, lead, p, entry.standing, *more])
    return heads, rows


def job_table(sweep: Sweep, jobs: Sequence[SweepJob]) -> tuple[list[Column], list[list[str]]]:
    """A row for each job, with its results in full precision."""
    fixed = {text.partition("=")[0] for text in sweep.fixed}
    keys = dict.fromkeys(key for job in sweep.jobs for key in job.overrides if key not in fixed)
    heads = [Column("job", True), Column("state"), *(Column(key) for key in keys)]
    heads += [*(Column(name, True) for name in sweep.objectives), Column("seconds", True), Column("reason", long=True)]
    rows = []
    for job in jobs:
        values = [repr(job.values[name]) if name in job.values else "" for name in sweep.objectives]
        note = job.reason if job.same_as is None else f"same as job {job.same_as}"
        own = [job.overrides.get(key, "") for key in keys]
        rows.append([str(job.number), job.state, *own, *values, f"{job.seconds:.1f}", note])
    return heads, rows


def _section(sweep: Sweep, state: State, title: str) -> dict[str, object] | None:
    jobs = [job for job in sweep.jobs if job.state == state]
    heads, rows = job_table(sweep, jobs[:MAX_ROWS])
    return {"title": title, "heads": heads, "rows": rows, "hidden": len(jobs[MAX_ROWS:])} if jobs else None
