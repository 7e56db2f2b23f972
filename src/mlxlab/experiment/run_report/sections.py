"""What a report shows below its first screen: results, curves, errors, samples, and what the run consisted of."""

from mlxlab.config.issues import value_at
from mlxlab.experiment.run_metrics import Metrics, RunMetrics, describe_counted, interval_text
from mlxlab.experiment.run_report.curves import evaluation_table, learning_curves
from mlxlab.experiment.run_report.metric_titles import metric_title, unit_of
from mlxlab.experiment.run_report.mistakes import list_mistakes, title_of_mistakes
from mlxlab.experiment.run_report.results import (
    ROWS,
    Results,
    baseline_sentence,
    baseline_title,
    shown,
    student_and_teacher,
)
from mlxlab.experiment.run_report.run_files import RunFiles
from mlxlab.html.blocks import (
    Block,
    Column,
    Image,
    Images,
    Paragraph,
    Sample,
    Section,
    Table,
)
from mlxlab.metric_names import TEST, VALID, lower_is_better, plain_name

PLOT_DPI = 120
_ERROR_PLOTS = {
    "confusion": "Confusion matrix: validation examples by true and predicted class",
    "reliability": "Reliability: share of right predictions by probability; calibrated ones lie on the diagonal",
    "precision_recall": "Precision by recall",
    "predicted": "Predicted by true value",
}
_DRAWN = ("learning_curve",)  # here as charts


def result_sections(files: RunFiles, results: Results) -> list[Section]:
    sections = [
        Section("Results", _results(files, results)),
        Section("Learning curves", learning_curves(files)),
        Section("Evaluations", evaluation_table(files), is_folded=True),
        Section("Errors", _errors(files)),
        Section(title_of_mistakes(files), list_mistakes(files, results)),
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
        blocks.append(
            Paragraph(sentence, is_verdict=True, is_good="this model is better" in sentence)
        )
    if results.baselines and results.value is not None:
        blocks += [Paragraph("The model and its baselines:"), _baseline_table(results)]
    blocks += [Paragraph(text, is_note=True) for text in _what_is_counted(files)]
    if files.metrics is not None:
        return [*blocks, *_metric_table(files, files.metrics)]
    rows = [[metric_title(name, files), shown(value)] for name, value in results.values.items()]
    return (
        [*blocks, Table([Column("metric"), Column("validation", True)], rows)] if rows else blocks
    )


def _what_is_counted(files: RunFiles) -> list[str]:
    """Of a language model: which tokens its metrics are of, and how much text its baselines have seen."""
    answers = {"assistant": "answers", "completion": "last answers"}.get(
        str(value_at(files.config, "data.loss_on"))
    )
    lines = [f"Only the {answers} have a loss: all metrics are of their tokens."] if answers else []
    text = files.metrics.get("counted_text") if files.metrics else None
    return [*lines, describe_counted(text)] if text else lines


def _metric_table(files: RunFiles, metrics: RunMetrics) -> list[Block]:
    """The metrics of each split, with the intervals of those that have one."""
    splits = {VALID: metrics["metrics"], TEST: metrics["test"]}
    names = dict.fromkeys(
        key.removeprefix(prefix) for prefix, values in splits.items() for key in values
    )
    if not names:
        return []
    columns, rows = [Column("metric")], [[_with_unit(name, files)] for name in names]
    for prefix, values in splits.items():
        if values:
            split = prefix.removesuffix("/")
            count = metrics.get("rows", {}).get(split)
            columns.append(Column(ROWS[split] + (f" ({count:,} rows)" if count else ""), True))
            for row, name in zip(rows, names, strict=True):
                row.append(_with_interval(f"{prefix}{name}", values, metrics))
    note = Paragraph(
        "The range below a value is its 95 % interval (bootstrap over the rows; of an accuracy of 0 or 1, exact).",
        is_note=True,
    )
    return [
        Paragraph("All metrics of the model:"),
        Table(columns, rows),
        *([note] if metrics["intervals"] else []),
    ]


def _with_unit(name: str, files: RunFiles) -> str:
    unit = unit_of(name, files).strip()
    return f"{metric_title(name, files)} ({unit})" if unit else metric_title(name, files)


def _with_interval(key: str, values: Metrics, metrics: RunMetrics) -> str:
    interval = interval_text(metrics["intervals"].get(key))
    return "\n".join(filter(None, [shown(values[key]), interval])) if key in values else ""


def _baseline_table(results: Results) -> Table:
    """The model and its baselines, the best one first."""
    named = {baseline_title(name): value for name, value in results.baselines.items()}
    named["this model"] = results.value or 0.0
    ranked = sorted(
        named.items(), key=lambda item: item[1], reverse=not lower_is_better(results.metric)
    )
    classes = ["own" if name == "this model" else "" for name, _ in ranked]
    title = f"{plain_name(results.metric)} ({ROWS[results.split]})"
    columns = [Column("model"), Column(title, is_number=True)]
    return Table(columns, [[name, shown(value)] for name, value in ranked], classes)


def _errors(files: RunFiles) -> list[Block]:
    images = [
        Image(files.plots[name], text, PLOT_DPI)
        for name, text in _ERROR_PLOTS.items()
        if name in files.plots
    ]
    return [*([Images(images)] if images else []), *_by_class(files)]


def _by_class(files: RunFiles) -> list[Block]:
    """A table for each split."""
    head, *rows = files.per_class or [[]]
    titles = {"f1": "F1", "support": "rows"}
    columns = [Column(titles.get(name, name), name != "class") for name in head]
    blocks: list[Block] = []
    for split in dict.fromkeys(row[0] for row in rows):
        own = [row[1:] for row in rows if row[0] == split]
        title = f"{ROWS.get(split, split).capitalize()} rows by class:"
        blocks += [Paragraph(title), Table(columns[1:], own, rest="in per_class.csv")]
    return blocks


def _samples(files: RunFiles) -> list[Block]:
    blocks: list[Block] = []
    for number, sample in enumerate(files.samples[:8], 1):
        start = (
            "continues validation text, which is grey" if sample["prompt"] else "begins a document"
        )
        ends = {"time": "; ended early to save time", "length": ""}
        blocks.append(
            Sample(
                f"Sample {number} {start}{ends.get(sample['end'], '')}",
                sample["prompt"],
                sample["text"],
            )
        )
    return (
        [*blocks, Paragraph("Sampled once, with temperature 0.8: not selected.", is_note=True)]
        if blocks
        else []
    )


def _teacher(files: RunFiles) -> list[Block]:
    if not (both := student_and_teacher(files)):
        return []
    names = dict.fromkeys([*both[0], *both[1]])
    rows = [
        [metric_title(name, files), *(_cell(name, values) for values in both)] for name in names
    ]
    columns = [Column("metric"), Column("student", True), Column("teacher", True)]
    note = (
        "On the same validation data; of the student its best evaluation, as in the results above."
    )
    return [Table(columns, rows), Paragraph(note, is_note=True)]


def _cell(name: str, metrics: Metrics) -> str:
    value = metrics.get(name)
    return (
        f"{value:,.0f}"
        if name == "parameters" and value is not None
        else shown(value)
        if name in metrics
        else ""
    )


def _rounds(files: RunFiles) -> list[Block]:
    """The models after each round of distillation, by the objective."""
    if not files.rounds:
        return []
    metric = str(files.manifest.get("outcome", {}).get("objective", "valid/loss")).removeprefix(
        VALID
    )
    first = next((each for each in files.rounds[0].values()), {})
    metric = metric if metric in first else "loss"
    models = list(dict.fromkeys(model for results in files.rounds for model in results))[:20]
    columns = [Column("round", True), *(Column(model, True) for model in models)]
    rows = [
        [
            str(number),
            *(shown(results[model].get(metric)) if model in results else "" for model in models),
        ]
        for number, results in enumerate(files.rounds, 1)
    ]
    return [
        Table(columns, rows),
        Paragraph(f"{metric} on the validation data after each round.", is_note=True),
    ]


def _events(files: RunFiles) -> list[Block]:
    events = [
        (step, f"a command that continued the run: {text}") for step, text in files.model_changes
    ]
    events += files.state["history"].events if files.state else []
    rows = [[f"{step:,}", text] for step, text in sorted(events, key=lambda event: event[0])]
    return [Table([Column("step", True), Column("change", is_text=True)], rows)] if rows else []


def _more_plots(files: RunFiles) -> list[Block]:
    drawn = {*_ERROR_PLOTS, *_DRAWN}
    images = [
        Image(png, f"Plot {name}", PLOT_DPI)
        for name, png in files.plots.items()
        if name not in drawn
    ]
    return [Images(images)] if images else []
