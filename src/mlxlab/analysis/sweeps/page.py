"""The report of a sweep as a page: the verdict, the ranking, plots, and the jobs that did not finish."""

from collections.abc import Sequence

from mlxlab.analysis.sweeps.best_configuration import BestConfiguration
from mlxlab.analysis.sweeps.cards import all_cards
from mlxlab.analysis.sweeps.plots import curve_plot, importance_plot, ranking_plot
from mlxlab.analysis.sweeps.sweep_jobs import Configuration, State, Sweep
from mlxlab.analysis.sweeps.tables import as_table, count_jobs, job_rows, ranking_rows
from mlxlab.analysis.sweeps.verdict import describe_intervals, describe_method
from mlxlab.stats.importance import MIN_CONFIGURATIONS, Importance, Reason
from mlxlab.stats.ranking import Ranking
from mlxlab.views.blocks import Block, Page, Paragraph, Plots, Section
from mlxlab.views.metrics import baseline_title
from mlxlab.views.numbers import number
from mlxlab.views.pages import block_page
from mlxlab.views.render import phrase
from mlxlab.views.verdict import has_learned_nothing
from mlxlab.wording import one_line, percent

_SECTIONS: dict[State, tuple[str, str]] = {  # titles, and what the state means
    "failed": ("Failed jobs", ""),
    "paused": (
        "Paused jobs",
        "Saved at a rung, not promoted and not ranked; a larger hydra.sweeper.trials may continue the best of them.",
    ),
    "unfinished": (
        "Unfinished jobs",
        "Not started, still running, or stopped; the command of the sweep with the same hydra.sweep.dir runs them.",
    ),
}
_REASONS: dict[Reason, str] = {
    "one key": "Importance compares two keys or more.",
    "too few configurations": f"Importance needs {MIN_CONFIGURATIONS} configurations or more, and 4 for each key.",
    "equal values": "All configurations have the same value.",
    "noise": "The keys do not predict the objective: what differs is noise.",
}
_DIGITS = 9


def sweep_page(
    sweep: Sweep,
    configurations: Sequence[Configuration],
    ranking: Ranking,
    importance: Importance,
    verdict: Sequence[str],
    best: BestConfiguration | None = None,
) -> str:
    subtitle = (
        f"{count_jobs(sweep)}. Ranked by {sweep.objective} of the best evaluation of each run"
    )
    if sweep.fixed:
        subtitle += f". All jobs: {' '.join(sweep.fixed)}"
    method = describe_method(ranking, sweep.test_ratio, sweep.repetition)
    sections = [
        Section("Ranking", _ranking_blocks(sweep, configurations, ranking, best)),
        Section("How they are compared", _paragraphs(method), is_folded=True),
        Section("Importance of the keys", _importance_blocks(sweep, ranking, importance)),
        Section("Learning curves", _curves(sweep, configurations, ranking)),
        *(_job_section(sweep, state) for state in _SECTIONS),
    ]
    page = Page(
        title=_title(sweep, best),
        subtitle=subtitle,
        cards=all_cards(sweep, configurations, ranking, verdict, best),
        sections=[section for section in sections if section.blocks],
    )
    return block_page(page)


def _paragraphs(*texts: str) -> list[Block]:
    return [Paragraph(text) for text in texts if text]


def _title(sweep: Sweep, best: BestConfiguration | None) -> str:
    """The name, and which model and data were trained."""
    name = sweep.name if sweep.name.lower().startswith("sweep") else f"Sweep {sweep.name}"
    if best is None or sweep.differs_in("model", "data"):
        return name
    return f"{name}: {phrase('answer', best.view)}"


def _ranking_blocks(
    sweep: Sweep,
    configurations: Sequence[Configuration],
    ranking: Ranking,
    best: BestConfiguration | None,
) -> list[Block]:
    """Empty with fewer than two configurations."""
    blocks: list[Block] = []
    if len(ranking.entries) > 1:
        rows = ranking_rows(sweep, configurations, ranking, full=False)
        # Phones show the first columns.
        table = as_table(sweep, rows, ("rank", sweep.objective, "interval", "standing"))
        table.rest = "in report/ranking.csv"
        table.strong = 0 if ranking.winner else None
        blocks.append(table)
        blocks += _paragraphs(_no_better_than_weakest(sweep, configurations, ranking, best))
    intervals = describe_intervals(ranking)
    if intervals:
        blocks.append(Paragraph(intervals, is_note=True))
    if len(ranking.entries) > 1:
        blocks.append(Plots([ranking_plot(sweep, configurations, ranking)]))
    return blocks


def _no_better_than_weakest(
    sweep: Sweep,
    configurations: Sequence[Configuration],
    ranking: Ranking,
    best: BestConfiguration | None,
) -> str:
    """Names the configurations that learned nothing, in the metric by which they are ranked; not where the data are swept."""
    if best is None or sweep.differs_in("data") or best.key != sweep.objective:
        return ""
    judged = best.judgement
    values = dict(judged.ranked)
    # Rounded: equal means may differ in their last bits.
    baselines = {name: round(value, _DIGITS) for name, value in values.items()}
    weak = []
    for each in ranking.entries:
        if has_learned_nothing(judged.metric, round(each.mean, _DIGITS), baselines):
            weak.append(configurations[each.index].name)
    if not weak:
        return ""
    names = one_line(", ".join(weak), 300)
    weakest = f"{baseline_title(judged.weakest)}, {number(values[judged.weakest])}"
    return f"No better than {weakest}: {names}."


def _importance_blocks(sweep: Sweep, ranking: Ranking, importance: Importance) -> list[Block]:
    """Empty with fewer than two keys or configurations."""
    if len(sweep.swept) < 2 or len(ranking.entries) < 2:
        return []
    blocks = _paragraphs(_describe_importance(importance))
    if importance.shares:
        blocks.append(Plots([importance_plot(importance)]))
    return blocks


def _curves(sweep: Sweep, configurations: Sequence[Configuration], ranking: Ranking) -> list[Block]:
    """Empty with fewer than two configurations, or without a curve."""
    plot = curve_plot(sweep, configurations, ranking)
    if plot is None or len(configurations) < 2:
        return []
    return [Plots([plot])]


def _describe_importance(importance: Importance) -> str:
    if importance.reason:
        return _REASONS[importance.reason]
    explained = percent(importance.explained, 0)
    return f"The keys predict {explained} of the variance of configurations that the forest has not seen."


def _job_section(sweep: Sweep, state: State) -> Section:
    """The jobs in a state, with their reasons first; without blocks if there are none."""
    title, meaning = _SECTIONS[state]
    jobs = [job for job in sweep.jobs if job.state == state]
    if not jobs:
        return Section(title, [])
    rows = job_rows(sweep, jobs)
    for row in rows:
        del row["state"]
    table = as_table(sweep, rows, ("job", "reason"))
    table.rest = "in report/jobs.csv"
    return Section(title, [*_paragraphs(meaning), table])
