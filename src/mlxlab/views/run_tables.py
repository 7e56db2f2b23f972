"""The tables and plots of a run."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import TypeAlias

from mlxlab.record.run_record import Diagnostics, Metrics, Mistake, SplitResult
from mlxlab.schema.metric_names import plain_key
from mlxlab.views.numbers import (
    MAIN_OF_TASK,
    ROWS,
    baseline_name,
    duration,
    interval,
    moment,
    number,
    title,
)
from mlxlab.views.plots import Plot, Series
from mlxlab.views.run_view import RunView
from mlxlab.views.tables import Column, Table, numeric
from mlxlab.views.verdict import MODEL

MISTAKES = 10
MISTAKE_TEXT = 240  # characters
UNIT = (0.0, 1.0)
Slices: TypeAlias = Mapping[str, Mapping[str, SplitResult]]  # results by column and value
MEMORY = {
    "memory/rss": "process (resident)",
    "memory/peak": "MLX, peak",
    "memory/active": "MLX, in use",
    "memory/cache": "MLX, cache",
}


def metrics_table(view: RunView, data: str = "") -> Table:
    """A row a metric: each split, or other data of this name, and the best baseline on the same rows."""
    table = Table([Column("metric")])
    for result in view.results:
        name = data or ROWS[result.split]
        if result.rows and view.record.is_evaluated and not view.is_text:
            name = f"{name} ({result.rows:,})"
        table.columns += numeric(name)
        if result.intervals:
            table.columns += numeric("95 % interval")
    best = view.judgement.best
    if best:
        table.columns += numeric(baseline_name(best))

    names: Metrics = {}
    for result in view.results:
        names |= result.metrics
    for name in names:
        row = [view.title(name)]
        for result in view.results:
            row.append(cell(result.metrics, name))
            if result.intervals:
                row.append(interval(result.intervals.get(name)))
        if best and view.result:
            row.append(cell(view.result.baselines[best], name))
        table.add(row, strong=name == view.metric)
    return table


def cell(metrics: Metrics, name: str) -> str:
    """A metric as a cell, empty if it was not measured."""
    if name not in metrics:
        return ""
    return number(metrics[name])


def baseline_table(view: RunView) -> Table:
    """The model among its baselines, the best one first."""
    judgement = view.judgement
    table = Table([Column("model"), *numeric(title(judgement.metric))])
    for name, value in judgement.rows:
        table.add([baseline_name(name), number(value)], strong=name == MODEL)
    return table


def slice_table(metric: str, slices: Slices) -> Table:
    """The main metric by the values of columns."""
    table = Table([Column("slice"), *numeric("rows", title(metric), "95 % interval")])
    for column, results in slices.items():
        for value, result in results.items():
            score = number(result.metrics[metric])
            limits = interval(result.intervals.get(metric))
            table.add([f"{column}: {value}", f"{result.rows:,}", score, limits])
    return table


def class_table(result: SplitResult) -> Table:
    table = Table([Column("class"), *numeric("precision", "recall", "F1", "rows")], limit=50)
    for each in result.classes:
        scores = [number(value) for value in (each.precision, each.recall, each.f1)]
        table.add([each.name, *scores, f"{each.rows:,}"])
    return table


def mistake_table(view: RunView) -> Table:
    """The most confident mistakes, or the largest errors; rows of the same text are one."""
    score = "confidence"
    if view.record.data.task == "regression":
        score = "error"
    columns = [Column("true"), Column("predicted"), Column("text", "prose"), Column("first row")]
    table = Table([*numeric(score), *columns, *numeric("count")], limit=MISTAKES)
    groups: dict[tuple[str, str], list[Mistake]] = {}
    for each in view.record.evaluation.mistakes:
        groups.setdefault((each.text or each.row, each.true), []).append(each)
    for group in groups.values():
        first = group[0]
        text = first.text
        if len(text) > MISTAKE_TEXT:
            text = f"{text[:MISTAKE_TEXT]} ..."
        row = PurePath(first.row).name
        cells = [number(first.score), first.true, first.predicted, text, row, str(len(group))]
        table.add(cells)
    return table


def teacher_table(view: RunView) -> Table:
    table = Table([Column("metric"), *numeric("student", "teacher")])
    student = view.student
    teacher = view.teacher
    for name in dict.fromkeys([*student, *teacher]):
        if name == "parameters":
            cells = [f"{each.get(name) or 0:,.0f}" for each in (student, teacher)]
        else:
            cells = [cell(student, name), cell(teacher, name)]
        table.add([title(name), *cells])
    return table


def round_table(view: RunView) -> Table:
    """The objective of each model after each round of distillation."""
    rounds = view.record.rounds
    names: dict[str, Metrics] = {}
    for each in rounds:
        names |= each
    models = list(names)[:20]
    metric = view.record.training.objective.rpartition("/")[2]
    table = Table(numeric("round", *models))
    for index, each in enumerate(rounds, 1):
        cells = [cell(each.get(model, {}), metric) for model in models]
        table.add([str(index), *cells])
    return table


def attempt_table(view: RunView) -> Table:
    """The processes that worked on the run, and how each ended."""
    table = Table([Column("began"), Column("took"), Column("ended"), Column("host")])
    for each in view.record.attempts:
        took = ""
        if each.end is not None:
            took = duration(each.end - each.start)
        ended: list[str] = [each.status]
        if not each.trained:
            ended.append("before training")
        if each.error:
            ended.append(f"({each.error[:200]})")
        table.add([moment(each.start), took, " ".join(ended), each.host])
    return table


def curves(view: RunView) -> list[Plot]:
    """Loss, main metric and learning rate by step; of a distilled run the losses apart."""
    training = view.record.training

    def plot(title: str, *series: Series, mark: float | None = training.best_step or None) -> Plot:
        return Plot(title, series, x_range=(0, last_step(view)), mark=mark)

    train = Series("training", view.points("train/loss"))
    valid = Series("validation", view.points("valid/loss"))
    if view.teachers:
        plots = [
            plot("training loss, of labels and teacher", train),
            plot("validation loss, of labels", valid),
        ]
    else:
        plots = [plot("loss", train, valid)]
    keys = [training.objective, f"valid/{MAIN_OF_TASK.get(view.record.data.task, '')}"]
    for key in dict.fromkeys(keys):
        if key != "valid/loss":
            plots.append(plot(plain_key(key), Series("", view.points(key))))
    rate = Series("", view.points("train/learning_rate"))
    plots.append(plot("learning rate", rate, mark=None))
    return [each for each in plots if not each.is_empty][:3]


def last_step(view: RunView) -> int:
    """The end of the axis of steps."""
    return max([1, *(step for step, _ in view.record.training.curve)])


def memory_plot(view: RunView) -> Plot | None:
    """None of a run that measured no memory."""
    series = []
    for key, name in MEMORY.items():
        points = [(step, size / 1e6) for step, size in view.points(key)]
        if points:
            series.append(Series(name, points))
    if not series:
        return None
    end = last_step(view)
    zero = Series("", [(0, 0.0), (end, 0.0)], "guide")
    return Plot("memory in MB", [*series, zero], x_range=(0, end))


def error_plots(view: RunView) -> list[Plot]:
    """Reliability and precision-recall, or predicted and residual by true value."""
    if view.valid is None:
        return []
    shown = view.valid.diagnostics
    plots = []
    if shown.reliability:
        plots.append(reliability_plot(shown))
    if shown.precision_recall:
        plots.append(precision_plot(shown, view.record.data.positive_class))
    if shown.predicted:
        plots += [predicted_plot(shown), residual_plot(shown)]
    return plots


def reliability_plot(shown: Diagnostics) -> Plot:
    """Calibrated probabilities lie on the diagonal."""
    bins = [(confidence, right) for confidence, right, _ in shown.reliability]
    series = [Series("", bins, "bars"), Series("", [(0.0, 0.0), (1.0, 1.0)], "guide")]
    return Plot("reliability: accuracy by confidence", series, "confidence", UNIT, UNIT)


def precision_plot(shown: Diagnostics, positive: str) -> Plot:
    """The guide is the share of the class, which a model that knows nothing reaches."""
    series = [Series("", shown.precision_recall)]
    if shown.positive_share is not None:
        level = shown.positive_share
        series.append(Series("", [(0.0, level), (1.0, level)], "guide"))
    return Plot(f"precision of {positive}", series, "recall", UNIT, UNIT)


def predicted_plot(shown: Diagnostics) -> Plot:
    truths = [true for true, _ in shown.predicted]
    low = min(truths)
    high = max(truths)
    diagonal = Series("", [(low, low), (high, high)], "guide")
    dots = Series("", shown.predicted, "dots")
    return Plot("predicted", [dots, diagonal], "true value")


def residual_plot(shown: Diagnostics) -> Plot:
    residuals = [(guess, true - guess) for true, guess in shown.predicted]
    guesses = [guess for guess, _ in residuals]
    zero = Series("", [(min(guesses), 0.0), (max(guesses), 0.0)], "guide")
    dots = Series("", residuals, "dots")
    return Plot("residual (true - predicted)", [dots, zero], "predicted")
