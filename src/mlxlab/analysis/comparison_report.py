"""Reports of a comparison of methods: a page, lines for a terminal (which are Markdown too), and JSON."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

from mlxlab.analysis.comparison import Comparison, MethodResults
from mlxlab.files.atomic import without_nonfinite, write_atomic, write_json
from mlxlab.schema.metric_names import VALID, better_direction
from mlxlab.stats import LEVEL
from mlxlab.stats.ranking import MIN_SEEDS
from mlxlab.terminal.wording import counted, percent
from mlxlab.views.checks import Check, State
from mlxlab.views.numbers import number, signed
from mlxlab.views.pages import Trust
from mlxlab.views.plots import Row, RowPlot, short_label
from mlxlab.views.render import phrase, render
from mlxlab.views.tables import Column, Table
from mlxlab.views.verdict import Judgement, best_baseline, judge_mean

_MAX_METHODS = 12  # methods in the table of settings
_STYLES = {"significant gain": "good", "significant loss": "bad"}  # verdict -> style
_TEXTS = ("method", "95 % interval", "verdict")  # columns


@dataclass(frozen=True)
class ComparisonView:
    """What is shown of a comparison."""

    comparison: Comparison

    @property
    def best(self) -> MethodResults:
        return self.comparison.methods[0]

    @property
    def is_sure(self) -> bool:
        """Whether the best method is better than the reference, or, as the reference, than each of the others."""
        if self.best.gain is not None:
            return self.best.gain.verdict == "significant gain"
        gains = self.comparison.gains.values()
        return all(gain.verdict == "significant loss" for gain in gains)

    @property
    def winner(self) -> str:
        """The best method; of three or more, with what it was tested against."""
        if len(self.comparison.methods) > 2 and self.best.gain is not None:
            return f"{self.best.name} (better than {self.comparison.against})"
        return self.best.name

    @property
    def told(self) -> list[MethodResults]:
        """The methods whose gain is told in a sentence."""
        baselines = self.comparison.subject.baselines
        return [
            each for each in self.comparison.methods if each.gain and each.name not in baselines
        ]

    @property
    def run_counts(self) -> list[int]:
        return sorted({len(each.values) for each in self.comparison.methods})

    @property
    def direction(self) -> str:
        return better_direction(self.comparison.metric)

    @cached_property
    def judgement(self) -> Judgement:
        """The judged method among the baselines of the data, with the interval where they are methods too."""
        comparison = self.comparison
        name = comparison.metric.removeprefix(VALID)
        value = comparison.method(comparison.judged).mean
        baselines = comparison.subject.baselines
        if math.isnan(value) or not baselines:
            return Judgement(name, None)
        best = best_baseline(name, baselines)
        gain = comparison.gains.get(best)
        intervals = {}
        if comparison.judged == comparison.against and gain is not None and gain.interval:
            low, high = gain.interval
            intervals[best] = (-high, -low)
        return judge_mean(name, value, baselines, intervals)

    @property
    def trust(self) -> Trust:
        comparison = self.comparison
        checks = [repetition_check(self.run_counts[0], "run"), baseline_check(self.judgement)]
        if comparison.metric.startswith(VALID):
            title = "validation scores, optimistic if they selected the settings"
            checks.append(Check("selection", "warning", title))
        if comparison.warnings:
            count = counted(len(comparison.warnings), "warning")
            checks.append(Check("warnings", "warning", f"{count} of the runs, below"))
        return Trust(checks)

    @property
    def table(self) -> Table:
        """The columns in which any method has something."""
        rows = [self._row(each) for each in self.comparison.methods]
        names = [name for name in rows[0] if any(row[name] for row in rows)]
        table = Table([Column(name, "text" if name in _TEXTS else "number") for name in names])
        for row in rows:
            is_better = row["verdict"] == "significant gain" and table.strong is None
            table.add([row[name] for name in names], strong=is_better)
        return table

    def _row(self, method: MethodResults) -> dict[str, str]:
        comparison = self.comparison
        row = {"method": method.name, "runs": str(len(method.values))}
        row |= {comparison.metric: _number(method.mean), "std. error": _number(method.error)}
        row |= {f"improvement over {comparison.against}": "", "95 % interval": "", "p": ""}
        row["verdict"] = "the reference"
        gain = method.gain
        if gain is not None:
            row[f"improvement over {comparison.against}"] = _number(gain.mean, signed)
            row["verdict"] = gain.verdict
            if gain.interval is not None:
                row["95 % interval"] = " to ".join(map(signed, gain.interval))
                row["p"] = f"{gain.p:.2g}"
        row["parameters"] = _number(method.parameters, _whole)
        row["tokens/s"] = _number(method.speed, _whole)
        return row | {"steps": _number(method.steps, _whole)}

    @property
    def differences(self) -> Table | None:
        """The settings that differ."""
        differs = self.comparison.subject.differs
        if not differs:
            return None
        names = [each.name for each in self.comparison.methods[:_MAX_METHODS]]
        rows = [[key, *(values.get(name, "") for name in names)] for key, values in differs.items()]
        return Table([Column("setting"), *map(Column, names)], rows)

    @property
    def plots(self) -> list[RowPlot]:
        """The runs, and if there are intervals, the differences to the reference with them."""
        runs = []
        gains = []
        for method in self.comparison.methods:
            name = short_label(method.name)
            values = method.values.values()
            row = Row(name, [y for y in values if y is not None and math.isfinite(y)])
            if math.isfinite(method.mean):
                row = replace(row, mean=method.mean)
            runs.append(row)
            gain = method.gain
            if gain is not None and gain.interval is not None:
                style = _STYLES.get(gain.verdict, "soft")
                gains.append(Row(name, mean=gain.mean, span=gain.interval, style=style))
        metric = short_label(self.comparison.metric)
        plots = [RowPlot("Methods: a dot per run, and the mean", metric, runs)]
        if gains:
            reference = short_label(self.comparison.against)
            title = f"Differences to {reference}, with {percent(LEVEL, 0)} intervals"
            plots.append(RowPlot(title, f"gain in {metric} (+ is better)", gains, guide=0.0))
        return plots


def comparison_lines(comparison: Comparison) -> str:
    """The verdicts, the table and the test."""
    return render("comparison.txt", view=ComparisonView(comparison)).strip()


def write_report(comparison: Comparison, folder: Path, name: str) -> None:
    """Writes NAME.md, NAME.json and NAME.html."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / f"{name}.md", f"{comparison_lines(comparison)}\n")
    write_json(folder / f"{name}.json", without_nonfinite(asdict(comparison)))
    page = render("comparison.html", view=ComparisonView(comparison), folder=folder.absolute())
    write_atomic(folder / f"{name}.html", page)


def _number(value: float | None, written: Callable[[float], str] = number) -> str:
    """A cell, empty without a value."""
    if value is None or math.isnan(value):
        return ""
    return written(value)


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def repetition_check(count: int, noun: str) -> Check:
    """Whether what has the fewest results has enough of them."""
    state: State = "good"
    if count < MIN_SEEDS:
        state = "warning"
    return Check("repetitions", state, f"{counted(count, noun)} each (minimum {MIN_SEEDS})")


def baseline_check(judgement: Judgement) -> Check:
    title = phrase("compared", judgement)
    if not judgement.ranked:
        return Check("baselines", "unknown", "baselines are not known")
    if judgement.is_bad:
        return Check("baselines", "bad", title)
    if judgement.verdict == "better":
        return Check("baselines", "good", title)
    return Check("baselines", "warning", title)
