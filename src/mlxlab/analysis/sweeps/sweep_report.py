"""The report of a sweep: `report.html`, and its tables in `report/`."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from mlxlab.analysis.comparison_report import baseline_check, repetition_check
from mlxlab.analysis.comparison_runs import common_means
from mlxlab.analysis.sweeps.sweep_jobs import Configuration, Sweep, group_configurations
from mlxlab.analysis.sweeps.tables import Row, as_table, count_jobs, job_rows, ranking_rows
from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.files.atomic import write_atomic
from mlxlab.record.run_file import read_run
from mlxlab.record.run_record import Interval, SplitResult
from mlxlab.schema.metric_names import better_direction
from mlxlab.stats.importance import Importance, measure_importance
from mlxlab.stats.ranking import MAX_SEEDS, MIN_SEEDS, RankedConfiguration, Ranking, rank
from mlxlab.stats.ranking import as_table as as_array
from mlxlab.terminal.wording import counted, percent
from mlxlab.views.checks import Check
from mlxlab.views.pages import Trust
from mlxlab.views.plots import Row as PlotRow
from mlxlab.views.plots import RowPlot, short_label
from mlxlab.views.render import render
from mlxlab.views.run_view import RunView
from mlxlab.views.tables import Table
from mlxlab.views.verdict import Judgement, baseline_values, judge, judge_value

PAGE = "report.html"
FOLDER = "report"
_MAX_RANKED = 25  # configurations in the plot
_STYLES = {"winner": "good", "worse": "soft"}  # standing -> style


class SweepReport(NamedTuple):
    """The page, the folder of tables, and the verdict in sentences."""

    page: Path
    folder: Path
    verdict: list[str]


@dataclass(frozen=True)
class BestConfiguration:
    """The view of its first run, and how the mean of its `count` runs on the rows of `split` was judged."""

    view: RunView
    split: str
    judgement: Judgement
    count: int

    @property
    def key(self) -> str:
        """The metric that was judged, with its split."""
        return f"{self.split}/{self.judgement.metric}"

    @property
    def is_useless(self) -> bool:
        """Whether it is no better than the weakest baseline."""
        return self.judgement.verdict in ("learned nothing", "ranks only")


@dataclass(frozen=True)
class SweepView:
    """What is shown of a sweep; `best` is None where no run folder can be read."""

    sweep: Sweep
    configurations: Sequence[Configuration]
    ranking: Ranking
    importance: Importance
    best: BestConfiguration | None = None

    min_seeds = MIN_SEEDS
    max_seeds = MAX_SEEDS

    def configuration(self, entry: RankedConfiguration) -> Configuration:
        return self.configurations[entry.index]

    @property
    def direction(self) -> str:
        return better_direction(self.sweep.objective)

    @property
    def counts(self) -> str:
        return count_jobs(self.sweep)

    @property
    def seeds_needed(self) -> int | None:
        if self.best is not None and self.best.is_useless:
            return None
        return self.ranking.seeds_needed

    @cached_property
    def verdict(self) -> list[str]:
        """Sentences; the first one is the verdict."""
        return render("sweep.txt", view=self).splitlines()

    @property
    def trust(self) -> Trust:
        count = min(entry.count for entry in self.ranking.entries)
        checks = [repetition_check(count, self.sweep.repetition)]
        failed = self.sweep.count("failed")
        if failed:
            checks.append(Check("failures", "warning", f"{counted(failed, 'job')} failed"))
        if self.best is not None:
            checks.append(baseline_check(self.best.judgement))
        if self.best is not None and self.best.split == "test":
            checks.append(Check("selection", "good", "test rows not used for selection"))
        else:
            title = "no test data: the score that selected the setting is optimistic"
            checks.append(Check("selection", "warning", title))
        return Trust(checks)

    @property
    def table(self) -> Table:
        rows = ranking_rows(self.sweep, self.configurations, self.ranking, short=True)
        # Phones show the first columns.
        table = as_table(rows, ("rank", self.sweep.objective, "low", "high", "standing"))
        table.rest = "in report/ranking.csv"
        if self.ranking.winner:
            table.strong = 0
        return table

    @property
    def jobs(self) -> Table | None:
        """The jobs without a result, with their reasons first."""
        jobs = [job for job in self.sweep.jobs if job.state != "finished"]
        if not jobs:
            return None
        jobs.sort(key=lambda job: job.state)
        table = as_table(job_rows(self.sweep, jobs), ("job", "state", "reason"))
        table.rest = "in report/jobs.csv"
        return table

    @property
    def has_intervals(self) -> bool:
        return any(math.isfinite(entry.margin) for entry in self.ranking.entries)

    @property
    def ranking_plot(self) -> RowPlot:
        """A dot for each seed, the mean and its interval; the best configuration on top."""
        objective = self.sweep.objective
        rows = []
        for entry in self.ranking.entries[:_MAX_RANKED]:
            configuration = self.configuration(entry)
            span = None
            if math.isfinite(entry.margin):
                span = (entry.mean - entry.margin, entry.mean + entry.margin)
            row = PlotRow(
                short_label(configuration.short_name),
                list(configuration.results.values()),
                mean=entry.mean if span else None,
                span=span,
                style=_STYLES.get(entry.standing, "s0"),
            )
            rows.append(row)
        marks = f"a dot per {self.sweep.repetition}"
        if self.has_intervals:
            marks += ", the mean and its 95 % interval"
        x_label = f"{short_label(objective)} ({self.direction} is better)"
        return RowPlot(f"Configurations: {marks}", x_label, rows)

    @property
    def importance_plot(self) -> RowPlot:
        rows = []
        for key, share in self.importance.shares.items():
            name = f"{short_label(key)}: {percent(share, 0)}"
            rows.append(PlotRow(name, [share], span=(0.0, share)))
        x_label = "share of the importance of all hyperparameters"
        return RowPlot("Hyperparameter importance", x_label, rows, x_range=(0.0, 1.0))


def view_sweep(sweep: Sweep) -> SweepView:
    """Ranks the configurations of a sweep, and judges the best one."""
    configurations = group_configurations(sweep)
    results = as_array([each.results for each in configurations])
    ranking = rank(results, minimised=sweep.minimised, shared_rows=sweep.test_ratio)
    means = {entry.index: entry.mean for entry in ranking.entries}
    points = [each.point for each in configurations]
    importance = measure_importance(points, [means[index] for index in range(len(means))])
    best = None
    if ranking.entries:
        best = read_best(configurations[ranking.entries[0].index])
    return SweepView(sweep, configurations, ranking, importance, best)


def write_sweep_report(sweep: Sweep, folder: Path) -> SweepReport:
    """Writes the report into a folder; OSError if that fails."""
    view = view_sweep(sweep)
    target = folder / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / PAGE, render("sweep.html", view=view))
    ranked = ranking_rows(sweep, view.configurations, view.ranking)
    write_atomic(target / "ranking.csv", _csv(ranked))
    write_atomic(target / "jobs.csv", _csv(job_rows(sweep, sweep.jobs)))
    return SweepReport(folder / PAGE, target, view.verdict)


def read_best(configuration: Configuration) -> BestConfiguration | None:
    """The finished runs of a configuration; None if no run folder can be read."""
    views = []
    for job in configuration.jobs:
        with suppress(InputNotFoundError, DataError):
            view = RunView(read_run(job.folder), job.folder)
            if job.value is not None and view.record.is_evaluated:
                views.append(view)
    results = [view.result for view in views if view.result is not None]
    if not results:
        return None
    judgement = judge_runs(results, views[0].metric)
    return BestConfiguration(views[0], results[0].split, judgement, len(results))


def judge_runs(results: Sequence[SplitResult], metric: str) -> Judgement:
    """Judges the mean of runs. The gain of each run is that on its own best baseline."""
    values = [each.metrics.get(metric) for each in results]
    known = [value for value in values if value is not None]
    value = None
    if len(known) == len(values):
        value = fmean(known)
    baselines = common_means([baseline_values(each, metric) for each in results])
    judged = judge_value(metric, value, baselines, {})
    gains = {
        judged.weakest: _mean_interval(each.gains.get(judged.weakest) for each in results),
        judged.best: _mean_interval(judge(each, metric).gain_interval for each in results),
    }
    area = _mean_interval(each.intervals.get("roc_auc") for each in results)
    known_gains = {name: gain for name, gain in gains.items() if gain is not None}
    return judge_value(metric, value, baselines, known_gains, area)


def _mean_interval(intervals: Iterable[Interval | None]) -> Interval | None:
    pairs = list(intervals)
    known = [pair for pair in pairs if pair is not None]
    if len(known) < len(pairs):
        return None
    return fmean(low for low, _ in known), fmean(high for _, high in known)


def _csv(rows: list[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
