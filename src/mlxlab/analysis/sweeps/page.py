"""The report of a sweep as a page: the verdict, the ranking, figures, and the jobs that did not finish."""

from collections.abc import Mapping, Sequence
from typing import get_args

from mlxlab.analysis.sweeps import figures
from mlxlab.analysis.sweeps.best_configuration import BestConfiguration
from mlxlab.analysis.sweeps.cards import all_cards
from mlxlab.analysis.sweeps.importance import Importance
from mlxlab.analysis.sweeps.ranking import Ranking
from mlxlab.analysis.sweeps.sweep_jobs import Configuration, State, Sweep, SweepJob, short_names
from mlxlab.analysis.sweeps.verdict import describe_method, rounded
from mlxlab.experiment.final_evaluation.findings import has_learned_nothing
from mlxlab.experiment.run_metrics import number
from mlxlab.experiment.run_report.results import baseline_title
from mlxlab.experiment.run_report.what_was_trained import training_card
from mlxlab.html.blocks import (
    MAX_ROWS,
    Block,
    Column,
    Image,
    Page,
    Paragraph,
    Section,
    Table,
)

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
_DIGITS = 9
_FIGURES = {
    "ranking": "Mean and interval of each configuration, with a dot for each seed",
    "importance": "Share of each key",
    "parallel": "A line for each configuration through its values and its objective",
    "curves": "Objective of each job by step",
}


def sweep_page(
    sweep: Sweep,
    configurations: Sequence[Configuration],
    ranking: Ranking,
    importance: Importance,
    verdict: Sequence[str],
    images: Mapping[str, bytes],
    best: BestConfiguration | None = None,
) -> Page:
    """The page of a sweep; `images` are PNG files by the name of the figure."""
    figure = {name: Image(png, _FIGURES[name], figures.DPI) for name, png in images.items()}
    fixed = f". All jobs: {' '.join(sweep.fixed)}" if sweep.fixed else ""
    is_shown = len(sweep.swept) > 1 and len(ranking.entries) > 1
    _, *method = describe_method(ranking, sweep.test_ratio, sweep.repetitions) or [""]
    is_good = ranking.winner is not None and not (best and best.finding)
    sections = [
        Section("Verdict", [Paragraph(text, is_verdict=True, is_good=is_good) for text in verdict]),
        Section("Ranking", _ranking_blocks(sweep, configurations, ranking, figure, best)),
        Section(
            "How they are compared", [Paragraph(" ".join(method))] if method else [], is_folded=True
        ),
        Section(
            "Importance of the keys", _importance_blocks(importance, figure) if is_shown else []
        ),
        Section("Parallel coordinates", [figure[name] for name in ("parallel",) if name in figure]),
        Section("Learning curves", [figure[name] for name in ("curves",) if name in figure]),
        *(_job_section(sweep, state) for state in _SECTIONS),
    ]
    return Page(
        title=_title(sweep, best),
        subtitle=f"{count_jobs(sweep)}. Ranked by {sweep.objective} of the best evaluation of each run{fixed}",
        cards=all_cards(sweep, configurations, ranking, best),
        sections=[section for section in sections if section.blocks],
    )


def _title(sweep: Sweep, best: BestConfiguration | None) -> str:
    """The name, and which model and data were trained."""
    name = sweep.name if sweep.name.lower().startswith("sweep") else f"Sweep {sweep.name}"
    is_same = best is not None and not sweep.differs_in("model", "data")
    return f"{name}: {training_card(best.files).answer}" if best and is_same else name


def count_jobs(sweep: Sweep) -> str:
    counts = [f"{sweep.count(state)} {state}" for state in get_args(State) if sweep.count(state)]
    return f"{len(sweep.jobs)} job{'s' * (len(sweep.jobs) != 1)}: {', '.join(counts) or 'none'}"


def ranking_table(
    sweep: Sweep, configurations: Sequence[Configuration], ranking: Ranking, *, full: bool
) -> tuple[list[Column], list[list[str]]]:
    """A row for each configuration, the best one first; numbers in full precision or as a reader wants them."""
    show = _exact if full else number
    heads = [Column("rank", True), Column(sweep.objective, True), *_key_columns(sweep.swept)]
    heads += [
        Column(name, True) for name in ("interval", sweep.repetitions, "behind the best", "p")
    ]
    heads += [Column("standing"), *(Column(f"mean {name}", True) for name in sweep.objectives[1:])]
    rows = []
    for place, entry in enumerate(ranking.entries, 1):
        each = configurations[entry.index]
        low, high = entry.mean - entry.margin, entry.mean + entry.margin
        interval = f"{show(low)} to {show(high)}" if low == low else ""
        lead = "" if place == 1 else _exact(entry.lead) if full else rounded(entry.lead)
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
    heads += [
        *(Column(name, True) for name in sweep.objectives),
        Column("seconds", True),
        Column("reason", is_text=True),
    ]
    rows = []
    for job in jobs:
        values = [repr(job.values[name]) if name in job.values else "" for name in sweep.objectives]
        note = job.reason if job.same_as is None else f"same as job {job.same_as}"
        own = [job.overrides.get(key, "") for key in keys]
        rows.append([str(job.number), job.state, *own, *values, f"{job.seconds:.1f}", note])
    return heads, rows


def _ranking_blocks(
    sweep: Sweep,
    configurations: Sequence[Configuration],
    ranking: Ranking,
    figure: Mapping[str, Image],
    best: BestConfiguration | None,
) -> list[Block]:
    """Empty with fewer than two configurations."""
    blocks: list[Block] = []
    if len(ranking.entries) > 1:
        table = _with_small_intervals(*ranking_table(sweep, configurations, ranking, full=False))
        heads, rows = _without_empty(*_with_standing_first(*table))
        classes = [each.standing.split(" ")[0] for each in ranking.entries]
        blocks.append(
            Table(heads, rows, classes, "in report/ranking.csv", is_sortable=True, is_stacked=True)
        )
        blocks += [
            Paragraph(text)
            for text in _no_better_than_weakest(sweep, configurations, ranking, best)
        ]
    if method := describe_method(ranking, sweep.test_ratio, sweep.repetitions):
        blocks.append(Paragraph(method[0], is_note=True))
    return [*blocks, *([figure["ranking"]] if "ranking" in figure else [])]


def _no_better_than_weakest(
    sweep: Sweep,
    configurations: Sequence[Configuration],
    ranking: Ranking,
    best: BestConfiguration | None,
) -> list[str]:
    """Which configurations learned nothing, in the metric by which they are ranked; not where the data are swept."""
    results = best.results if best else None
    if (
        results is None
        or sweep.differs_in("data")
        or f"{results.split}/{results.metric}" != sweep.objective
    ):
        return []
    # Rounded: equal means may differ in their last bits.
    baselines = {name: round(value, _DIGITS) for name, value in results.baselines.items()}
    weak = [
        each
        for each in ranking.entries
        if has_learned_nothing(results.metric, round(each.mean, _DIGITS), baselines)
    ]
    if not weak:
        return []
    names = ", ".join(configurations[each.index].name for each in weak[:3])
    more = f" and {len(weak) - 3} more" if len(weak) > 3 else ""
    weakest = f"{baseline_title(results.weakest)}, {number(results.baselines[results.weakest])}"
    return [f"No better than {weakest}: {names}{more}."]


def _with_small_intervals(
    heads: list[Column], rows: list[list[str]]
) -> tuple[list[Column], list[list[str]]]:
    """The interval of a mean below it, instead of in a column of its own."""
    at = [head.name for head in heads].index("interval")
    shown = [
        [row[0], "\n".join(filter(None, [row[1], row[at]])), *row[2:at], *row[at + 1 :]]
        for row in rows
    ]
    return [*heads[:at], *heads[at + 1 :]], shown


def _with_standing_first(
    heads: list[Column], rows: list[list[str]]
) -> tuple[list[Column], list[list[str]]]:
    """After rank and objective, where phones show it."""
    at = [head.name for head in heads].index("standing")
    order = [0, 1, at, *(n for n in range(2, len(heads)) if n != at)]
    return [heads[n] for n in order], [[row[n] for n in order] for row in rows]


def _importance_blocks(importance: Importance, figure: Mapping[str, Image]) -> list[Block]:
    return [Paragraph(importance.note), *([figure["importance"]] if "importance" in figure else [])]


def _job_section(sweep: Sweep, state: State) -> Section:
    """The jobs in a state, with their reasons first; without blocks if there are none."""
    title, meaning = _SECTIONS[state]
    jobs = [job for job in sweep.jobs if job.state == state]
    if not jobs:
        return Section(title, [])
    heads, rows = job_table(sweep, jobs[: MAX_ROWS + 1])
    order = sorted(
        range(len(heads)),
        key=lambda column: (heads[column].name != "job", heads[column].name != "reason"),
    )
    order = [column for column in order if heads[column].name != "state"]
    heads, rows = (
        [heads[column] for column in order],
        [[row[column] for column in order] for row in rows],
    )
    heads, rows = _without_empty(heads, rows)
    hidden = (
        f"{len(jobs) - MAX_ROWS} of them only in report/jobs.csv." if len(jobs) > MAX_ROWS else ""
    )
    note = " ".join(filter(None, [meaning, hidden]))
    table = Table(heads, rows[:MAX_ROWS], is_sortable=True)
    return Section(title, [Paragraph(note, is_note=True), table] if note else [table])


def _without_empty(
    heads: list[Column], rows: list[list[str]]
) -> tuple[list[Column], list[list[str]]]:
    """The columns in which any row has something."""
    columns = [column for column in range(len(heads)) if any(row[column] for row in rows)]
    return [heads[column] for column in columns], [
        [row[column] for column in columns] for row in rows
    ]
