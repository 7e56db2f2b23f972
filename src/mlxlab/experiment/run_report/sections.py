"""What a report shows below its first screen: results, curves, errors, samples, and what the run consisted of."""

from math import isfinite

from mlxlab.checkpoint.state import History
from mlxlab.experiment.run_metrics import Metrics
from mlxlab.experiment.run_report.results import UNIGRAM, Results, baseline_sentence, shown
from mlxlab.experiment.run_report.run_files import RunFiles
from mlxlab.html.blocks import (
    Block,
    Charts,
    Column,
    Image,
    Images,
    Paragraph,
    Sample,
    Section,
    Table,
)
from mlxlab.html.line_chart import LineChart, Points
from mlxlab.metric_names import (
    GRAD_NORM,
    LEARNING_RATE,
    LOSS,
    TEST,
    TOKENS_PER_SEC,
    VALID,
    VALID_LOSS,
    lower_is_better,
)
from mlxlab.training.metrics.labelled import MAIN_METRIC

PLOT_DPI = 120
_ERROR_PLOTS = {
    "confusion": "Confusion matrix: validation examples by true and predicted class",
    "reliability": "Reliability: frequency by predicted probability; calibrated probabilities lie on the diagonal",
    "precision_recall": "Precision by recall",
    "predicted": "Predicted by true value",
}
_DRAWN = ("learning_curve",)  # here as charts
_MAX_MISTAKES = 15


def result_sections(files: RunFiles, results: Results) -> list[Section]:
    sections = [
        Section("Results", _results(files, results)),
        Section("Learning curves", _curves(files)),
        Section("Errors", _errors(files)),
        Section("Most confident mistakes", _mistakes(files)),
        Section("Generated text", _samples(files)),
        Section("Teacher and student", _teacher(files)),
        Section("Rounds", _rounds(files)),
        Section("Changes during the run", _events(files)),
        Section("More plots", _more_plots(files), is_folded=True),
    ]
    return [section for section in sections if section.blocks]


def _results(files: RunFiles, results: Results) -> list[Block]:
    blocks: list[Block] = []
    if sentence := baseline_sentence(results):
        blocks.append(Paragraph(sentence, is_verdict=True, is_good="this model is better" in sentence))
    if results.baselines and results.value is not None:
        blocks.append(_baseline_table(results))
    metrics = files.metrics
    if metrics is None:
        rows = [[name, shown(value)] for name, value in results.values.items()]
        return [*blocks, Table([Column("metric"), Column("validation", True)], rows)] if rows else blocks
    columns, table = (
        [Column("metric")],
        {key.removeprefix(VALID): [key.removeprefix(VALID)] for key in metrics["metrics"]},
    )
    for title, prefix, values in (("validation", VALID, metrics["metrics"]), ("test", TEST, metrics["test"])):
        if values:
            columns += [Column(title, True), Column("95 % interval", True)]
            for name, cells in table.items():
                cells += [shown(values[f"{prefix}{name}"]) if f"{prefix}{name}" in values else ""]
                cells += [_interval(metrics["intervals"].get(f"{prefix}{name}"))]
    if not any(row[2::2] != [""] * len(row[2::2]) for row in table.values()):  # no intervals
        columns, table = columns[:2], {name: row[:2] for name, row in table.items()}
    return [*blocks, Table(columns, list(table.values()))] if table else blocks


def _baseline_table(results: Results) -> Table:
    """The model and its baselines, the best one first."""
    values = {"unigram": UNIGRAM} | {name: name for name in results.baselines}
    named = {values[name] if name != "unigram" else UNIGRAM: value for name, value in results.baselines.items()}
    named["this model"] = results.value or 0.0
    ranked = sorted(named.items(), key=lambda item: item[1], reverse=not lower_is_better(results.metric))
    classes = ["own" if name == "this model" else "" for name, _ in ranked]
    columns = [Column("model"), Column(f"{results.split}/{results.metric}", is_number=True)]
    return Table(columns, [[name, shown(value)] for name, value in ranked], classes)


def _interval(pair: tuple[float | None, float | None] | None) -> str:
    return "" if pair is None or None in pair else f"{shown(pair[0])} to {shown(pair[1])}"


def _curves(files: RunFiles) -> list[Block]:
    if files.state is None:
        losses = files.lock["losses"] if files.lock else {}
        chart = LineChart("Loss", {LOSS: sorted((int(step), value) for step, value in losses.items())})
        return [Charts([chart])] if chart.finite else []
    history = files.state["history"]
    best = (history.best_step, "best") if history.best is not None else None
    charts = [LineChart("Loss", {name: _points(history, name) for name in (LOSS, VALID_LOSS)}, mark=best)]
    objective = files.manifest.get("outcome", {}).get("objective", str(files.config.get("objective", VALID_LOSS)))
    names = [objective, *(f"{VALID}{name}" for name in MAIN_METRIC.values())]
    drawn = [LineChart(name, {name: _points(history, name)}, mark=best) for name in names if name != VALID_LOSS]
    charts += [chart for chart in drawn if chart.finite][:1]
    charts += [LineChart(name, {name: _points(history, name)}) for name in (LEARNING_RATE, GRAD_NORM, TOKENS_PER_SEC)]
    charts = [chart for chart in charts if chart.finite][:3]
    return [Charts(charts)] if charts else []


def _points(history: History, name: str) -> Points:
    return [
        (step, metrics[name] if isfinite(metrics[name]) else None) for step, metrics in history.curve if name in metrics
    ]


def _errors(files: RunFiles) -> list[Block]:
    images = [Image(files.plots[name], text, PLOT_DPI) for name, text in _ERROR_PLOTS.items() if name in files.plots]
    blocks: list[Block] = [Images(images)] if images else []
    if len(files.per_class) > 1:
        head, *rows = files.per_class
        blocks.append(
            Table([Column(name, index > 1) for index, name in enumerate(head)], rows, rest="in per_class.csv")
        )
    return blocks


def _mistakes(files: RunFiles) -> list[Block]:
    if len(files.mistakes) < 2:
        return []
    head, *rows = files.mistakes
    kinds = [Column(name, is_text=name == "text", is_number=name in ("id", head[-1])) for name in head]
    order = [4, 2, 3, 1, 0]  # text after what matters, so that phones show it
    table = Table([kinds[n] for n in order], [[row[n] for n in order] for row in rows[:_MAX_MISTAKES]])
    rest = len(rows[_MAX_MISTAKES:])
    note = f"Of validation rows; {rest} more in mistakes.csv." if rest else "Of validation rows."
    return [table, Paragraph(note, is_note=True)]


def _samples(files: RunFiles) -> list[Block]:
    blocks: list[Block] = []
    for number, sample in enumerate(files.samples[:8], 1):
        start = "continues validation text, which is grey" if sample["prompt"] else "begins a document"
        ends = {"time": "; cut off for time", "length": ""}
        blocks.append(Sample(f"Sample {number} {start}{ends.get(sample['end'], '')}", sample["prompt"], sample["text"]))
    return [*blocks, Paragraph("Sampled once, with temperature 0.8: not selected.", is_note=True)] if blocks else []


def _teacher(files: RunFiles) -> list[Block]:
    reference = files.metrics["reference"] if files.metrics else {}
    if not {"student", "teacher"} <= reference.keys():
        return []
    names = dict.fromkeys([*reference["student"], *reference["teacher"]])
    rows = [[name, *(_cell(name, reference[model]) for model in ("student", "teacher"))] for name in names]
    note = (
        "Both at the last step, on the same validation data. One run cannot tell whether the teacher helped: train"
        " without it too, both over several seeds, and compare them (mlxlab compare)."
    )
    columns = [Column("metric"), Column("student", True), Column("teacher", True)]
    return [Table(columns, rows), Paragraph(note, is_note=True)]


def _cell(name: str, metrics: Metrics) -> str:
    value = metrics.get(name)
    return f"{value:,.0f}" if name == "parameters" and value is not None else shown(value) if name in metrics else ""


def _rounds(files: RunFiles) -> list[Block]:
    """The models after each round of distillation, by the objective."""
    if not files.rounds:
        return []
    metric = str(files.manifest.get("outcome", {}).get("objective", "valid/loss")).removeprefix(VALID)
    first = next((each for each in files.rounds[0].values()), {})
    metric = metric if metric in first else "loss"
    models = list(dict.fromkeys(model for results in files.rounds for model in results))[:20]
    columns = [Column("round", True), *(Column(model, True) for model in models)]
    rows = [
        [str(number), *(shown(results[model].get(metric)) if model in results else "" for model in models)]
        for number, results in enumerate(files.rounds, 1)
    ]
    return [Table(columns, rows), Paragraph(f"{metric} on the validation data after each round.", is_note=True)]


def _events(files: RunFiles) -> list[Block]:
    events = files.state["history"].events if files.state else []
    rows = [[f"{step:,}", text] for step, text in events]
    return [Table([Column("step", True), Column("change", is_text=True)], rows)] if rows else []


def _more_plots(files: RunFiles) -> list[Block]:
    drawn = {*_ERROR_PLOTS, *_DRAWN}
    images = [Image(png, f"Plot {name}", PLOT_DPI) for name, png in files.plots.items() if name not in drawn]
    return [Images(images)] if images else []
