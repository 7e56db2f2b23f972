"""A trial as its page and its closing lines show it: the change, the verdict, and the gain of each pair of runs."""

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean

from mlxlab.analysis.comparison_runs import mean_baselines
from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.record.run_file import read_run
from mlxlab.schema.dotted_keys import override_name, value_at
from mlxlab.schema.metric_names import VALID, better_direction, plain_key, sign_of
from mlxlab.sweep.trial.record import (
    ARMS,
    FILE,
    Arm,
    LookRecord,
    RunRecord,
    TrialRecord,
)
from mlxlab.terminal.program import display_path
from mlxlab.views.numbers import signed
from mlxlab.views.plots import Row, RowPlot, short_label
from mlxlab.views.render import render
from mlxlab.views.run_view import RunView
from mlxlab.views.tables import Table, numeric
from mlxlab.views.verdict import Judgement, judge_mean


@dataclass(frozen=True)
class TrialView:
    """What is shown of the trial in a folder."""

    record: TrialRecord
    folder: Path

    @property
    def change(self) -> str:
        return " ".join(self.record.question.change)

    @property
    def file(self) -> str:
        return display_path(self.folder / FILE)

    @property
    def metric(self) -> str:
        return self.record.question.metric

    @property
    def direction(self) -> str:
        return better_direction(self.metric)

    @property
    def last_look(self) -> LookRecord | None:
        return self.record.looks[-1] if self.record.looks else None

    @property
    def means(self) -> dict[Arm, float]:
        """The means of the finished runs, by arm."""
        means = {}
        for arm in ARMS:
            runs = [run for run in self.record.runs if run.arm == arm]
            finished = [run.value for run in runs if run.value is not None]
            if finished:
                means[arm] = fmean(finished)
        return means

    @cached_property
    def own_runs(self) -> list[RunView]:
        """The runs in the folder of the trial that can be read, those of the baseline first."""
        views = []
        for run in sorted(self.record.runs, key=lambda run: run.arm):
            with suppress(InputNotFoundError, DataError):
                if run.folder.isdecimal():
                    path = self.folder / run.folder
                    views.append(RunView(read_run(path), path))
        return views

    @property
    def first_run(self) -> RunView | None:
        return next(iter(self.own_runs), None)

    @property
    def replaced(self) -> list[str]:
        """The settings of the baseline that the change replaces, as far as they are known."""
        question = self.record.question
        typed = {override_name(text): text for text in question.overrides["baseline"]}
        replaced = []
        for key in map(override_name, question.change):
            if key in typed:
                replaced.append(typed[key])
            elif self.first_run is not None:
                value = value_at(self.first_run.record.config, key)
                if value is not None:
                    replaced.append(f"{key}={value}")
        return replaced

    @property
    def judgement(self) -> Judgement:
        """The mean of the better arm among the baselines of the data."""
        name = self.metric.removeprefix(VALID)
        values = [sign_of(name) * value for value in self.means.values()]
        if not values:
            return Judgement(name, None)
        best = sign_of(name) * max(values)
        # Both arms of a seed have the same baselines.
        by_seed = {run.record.seed: run for run in self.own_runs}
        return judge_mean(name, best, mean_baselines(by_seed.values(), self.metric))

    @property
    def pairs(self) -> Table:
        """The values of both arms by seed; * marks a run that was trained before."""
        gains = iter(self.record.gains)
        table = Table(numeric("seed", *ARMS, "gain"))
        for seed, runs in self.record.by_seed.items():
            gain = next(gains, None) if len(runs) == 2 else None
            cells = [_cell(runs.get(arm)) for arm in ARMS]
            table.add([str(seed), *cells, "" if gain is None else signed(gain, 6)])
        return table

    @property
    def has_reused_runs(self) -> bool:
        return any(run.reused for run in self.record.runs)

    @property
    def plots(self) -> list[RowPlot]:
        """A dot for the gain of each pair, and their mean with its interval; empty without a finished pair."""
        gains = self.record.gains
        if not gains:
            return []
        rows = [Row("pairs", gains)]
        look = self.last_look
        if look is not None:
            span = (look.low, look.high)
            rows.append(Row("mean and corrected 95 % interval", mean=look.mean, span=span))
        x_label = f"gain in {short_label(plain_key(self.metric))}: right of 0 the change is better"
        return [RowPlot("Gain of each pair, and their mean", x_label, rows, guide=0.0)]


def trial_page(record: TrialRecord, folder: Path) -> str:
    return render("trial.html", trial=TrialView(record, folder))


def describe(record: TrialRecord, folder: Path) -> str:
    """The result for a terminal: the values by seed, the last interval, the verdict."""
    return render("trial.txt", trial=TrialView(record, folder)).strip()


def _cell(run: RunRecord | None) -> str:
    if run is None:
        return ""
    if run.value is None:
        return "failed"
    return f"{run.value:.6f}{'*' if run.reused else ''}"
