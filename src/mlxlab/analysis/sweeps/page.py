"""The report of a sweep as one HTML page: readable without scripts, and without a request to anywhere."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, get_args

from mlxlab.analysis.sweeps import figures
from mlxlab.analysis.sweeps.importance import Importance
from mlxlab.analysis.sweeps.ranking import Ranking
from mlxlab.analysis.sweeps.sweep_jobs import Configuration, State, Sweep, SweepJob, short_names
from mlxlab.analysis.sweeps.verdict import describe_method, number

MAX_ROWS = 200
_SECTIONS: dict[State, tuple[str, str]] = {  # titles, and what the state means
    "failed": ("Failed jobs", ""),
    "pruned": ("Pruned jobs", "Ended early by the pruner; they are not in the ranking."),
    "paused": (
        "Paused jobs",
        "Saved at a rung, not promoted and not ranked; a larger hydra.sweeper.trials may continue the best of them.",
    ),
    "unfinished": (
        "Unfinished jobs",
        "Not started, still running, or stopped; the command of the sweep with the same hydra.sweep.dir runs them.",
    ),
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
    """`name`, and on the page its last part, if that is enough to tell the keys apart."""

    name: str
    number: bool = False
    long: bool = False
    short: str = ""


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
    digest = base64.b64encode(hashlib.sha256(_SORT.encode()).digest()).decode()
    return page.render(
        title=f"Sweep {sweep.name}",
        counts=count_jobs(sweep),
        fixed=" ".join(sweep.fixed),
        verdict=verdict,
        won=ranking.winner is not None,
        ranking=_ranking_section(sweep, configurations, ranking),
        method=describe_method(ranking, sweep.test_ratio, sweep.repetitions),
        importance=importance.note if len(sweep.swept) > 1 and len(ranking.entries) > 1 else "",
        images={"ranking": None, "importance": None, "parallel": None, "curves": None}
        | {name: _image(png) for name, png in images.items()},
        sections=[section for state in _SECTIONS if (section := _job_section(sweep, state))],
        script=Markup(_SORT),
        script_hash=f"sha256-{digest}",
    )


def count_jobs(sweep: Sweep) -> str:
    counts = [f"{sweep.count(state)} {state}" for state in get_args(State) if sweep.count(state)]
    return f"{len(sweep.jobs)} job{'s' * (len(sweep.jobs) != 1)}: {', '.join(counts) or 'none'}"


def ranking_table(
    sweep: Sweep, configurations: Sequence[Configuration], ranking: Ranking, *, full: bool
) -> tuple[list[Column], list[list[str]]]:
    """A row for each configuration, the best one first; numbers in full precision or as a reader wants them."""
    show = _exact if full else number
    heads = [Column("rank", True), Column(sweep.objective, True), *_key_columns(sweep.swept)]
    heads += [Column(name, True) for name in ("interval", sweep.repetitions, "behind the best", "p")]
    heads += [Column("standing"), *(Column(f"mean {name}", True) for name in sweep.objectives[1:])]
    rows = []
    for place, entry in enumerate(ranking.entries, 1):
        each = configurations[entry.index]
        low, high = entry.mean - entry.margin, entry.mean + entry.margin
        interval = f"{show(low)} to {show(high)}" if low == low else ""
        lead = show(entry.lead) if place > 1 else ""
        p = "" if entry.p != entry.p else _exact(entry.p) if full else f"{entry.p:.2g}"
        others = [each.results(name).values() for name in sweep.objectives[1:]]
        more = [show(sum(values) / len(values)) if values else "" for values in others]
        values_of_keys = each.point if full else each.labels
        start = [str(place), show(entry.mean), *(values_of_keys[key] for key in sweep.swept)]
        rows.append([*start, interval, str(entry.count), lead, p, entry.standing, *more])
    return heads, rows


def _exact(value: float) -> str:
    return repr(float(value))


def _key_columns(keys: Sequence[str]) -> list[Column]:
    names = short_names(keys)
    return [Column(key, short=names[key]) for key in keys]


def job_table(sweep: Sweep, jobs: Sequence[SweepJob]) -> tuple[list[Column], list[list[str]]]:
    """A row for each job, with its results in full precision."""
    fixed = {text.partition("=")[0] for text in sweep.fixed}
    keys = dict.fromkeys(key for job in sweep.jobs for key in job.overrides if key not in fixed)
    heads = [Column("job", True), Column("state"), *_key_columns(list(keys))]
    heads += [*(Column(name, True) for name in sweep.objectives), Column("seconds", True), Column("reason", long=True)]
    rows = []
    for job in jobs:
        values = [repr(job.values[name]) if name in job.values else "" for name in sweep.objectives]
        note = job.reason if job.same_as is None else f"same as job {job.same_as}"
        own = [job.overrides.get(key, "") for key in keys]
        rows.append([str(job.number), job.state, *own, *values, f"{job.seconds:.1f}", note])
    return heads, rows


def _ranking_section(
    sweep: Sweep, configurations: Sequence[Configuration], ranking: Ranking
) -> dict[str, object] | None:
    """None with fewer than two configurations."""
    if len(ranking.entries) < 2:
        return None
    heads, rows = _without_empty(*ranking_table(sweep, configurations, ranking, full=False))
    classes = [each.standing.split(" ")[0] for each in ranking.entries]
    return {"heads": heads, "rows": rows[:MAX_ROWS], "classes": classes, "hidden": len(rows[MAX_ROWS:])}


def _job_section(sweep: Sweep, state: State) -> dict[str, object] | None:
    """The jobs in a state, with their reasons first."""
    jobs = [job for job in sweep.jobs if job.state == state]
    if not jobs:
        return None
    heads, rows = job_table(sweep, jobs[:MAX_ROWS])
    order = sorted(range(len(heads)), key=lambda column: (heads[column].name != "job", heads[column].name != "reason"))
    order = [column for column in order if heads[column].name != "state"]
    heads, rows = [heads[column] for column in order], [[row[column] for column in order] for row in rows]
    heads, rows = _without_empty(heads, rows)
    title, meaning = _SECTIONS[state]
    hidden = len(jobs[MAX_ROWS:])
    return {"title": title, "meaning": meaning, "heads": heads, "rows": rows, "hidden": hidden}


def _without_empty(heads: list[Column], rows: list[list[str]]) -> tuple[list[Column], list[list[str]]]:
    """The columns in which any row has something."""
    columns = [column for column in range(len(heads)) if any(row[column] for row in rows)]
    return [heads[column] for column in columns], [[row[column] for column in columns] for row in rows]


def _image(png: bytes) -> dict[str, object]:
    """A figure and its width in inches, from the header of the PNG."""
    width = int.from_bytes(png[16:20], "big") / figures.DPI
    return {"data": base64.b64encode(png).decode(), "inches": round(width, 2)}
