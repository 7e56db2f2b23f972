"""The learning curves of a run, as charts and as numbers."""

from functools import partial
from math import isfinite

from mlxlab.checkpoint.state import History
from mlxlab.experiment.run_report.results import objective_of, shown
from mlxlab.experiment.run_report.run_files import RunFiles
from mlxlab.html.blocks import Block, Charts, Column, Paragraph, Table
from mlxlab.html.line_chart import LineChart, Points
from mlxlab.metric_names import GRAD_NORM, LEARNING_RATE, LOSS, TOKENS_PER_SEC, VALID, VALID_LOSS
from mlxlab.training.metrics.labelled import MAIN_METRIC


def learning_curves(files: RunFiles) -> list[Block]:
    """The axis of the steps is the same in all charts."""
    if files.state is None:
        losses = files.lock["losses"] if files.lock else {}
        losses_chart = LineChart(
            "Loss", {LOSS: sorted((int(step), value) for step, value in losses.items())}
        )
        return [Charts([losses_chart])] if losses_chart.finite else []
    history = files.state["history"]
    chart = partial(LineChart, end=max([1, *(step for step, _ in history.curve)]))
    best = (history.best_step, "best") if history.best is not None else None
    both = {name: _points(history, name) for name in (LOSS, VALID_LOSS)}
    charts = [chart("Loss", both, mark=best)]
    if files.manifest.get("inputs", {}).get("teachers"):  # they cannot be compared
        titles = {
            LOSS: f"{LOSS}: of labels and teacher together",
            VALID_LOSS: f"{VALID_LOSS}: of labels alone",
        }
        charts = [chart(titles[name], {name: points}, mark=best) for name, points in both.items()]
    names = [objective_of(files), *(f"{VALID}{name}" for name in MAIN_METRIC.values())]
    drawn = [
        chart(name, {name: _points(history, name)}, mark=best)
        for name in names
        if name != VALID_LOSS
    ]
    charts += [each for each in drawn if each.finite][:1]
    charts += [
        chart(name, {name: _points(history, name)})
        for name in (LEARNING_RATE, GRAD_NORM, TOKENS_PER_SEC)
    ]
    charts = [each for each in charts if each.finite][:3]
    return [Charts(charts)] if charts else []


def evaluation_table(files: RunFiles) -> list[Block]:
    """The numbers of the curves at each evaluation; nothing of a run with one."""
    if files.state is None:
        return []
    history = files.state["history"]
    steps = [step for step, _ in history.evaluations]
    candidates = [
        LOSS,
        VALID_LOSS,
        objective_of(files),
        *(f"{VALID}{name}" for name in MAIN_METRIC.values()),
    ]
    cells = {
        name: [_at(history, name, step) for step in steps] for name in dict.fromkeys(candidates)
    }
    names = [name for name, texts in cells.items() if any(texts)]
    rows = [[f"{step:,}", *(cells[name][row] for name in names)] for row, step in enumerate(steps)]
    classes = ["own" if step == history.best_step else "" for step in steps]
    columns = [Column("step", True), *(Column(name, True) for name in names)]
    note = "In bold the best evaluation, whose weights are kept: the results above are of it, not of the last one."
    return [Table(columns, rows, classes), Paragraph(note, is_note=True)] if len(rows) > 1 else []


def _at(history: History, name: str, step: int) -> str:
    """The value of a step; of the training loss, which is logged on its own, the last one before with its step."""
    logged = dict(history.curve)
    if name in (values := logged.get(step, {})):
        return shown(values[name])
    before = (
        [at for at, values in history.curve if at < step and LOSS in values] if name == LOSS else []
    )
    return f"{shown(logged[before[-1]][LOSS])}\n(step {before[-1]:,})" if before else ""


def _points(history: History, name: str) -> Points:
    return [
        (step, metrics[name] if isfinite(metrics[name]) else None)
        for step, metrics in history.curve
        if name in metrics
    ]
