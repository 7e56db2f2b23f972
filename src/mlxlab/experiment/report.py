"""The report at the end of a run: metrics with intervals, and the baselines."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from math import isnan, nan
from pathlib import Path
from typing import TypeVar

from mlxlab.baselines.baseline import Baseline
from mlxlab.checkpoint.state import History
from mlxlab.data.batch import Task
from mlxlab.data.dataset import DataModule
from mlxlab.data.row_lengths import MANY, MeasuresRows
from mlxlab.experiment.final_evaluation.evaluate import MODEL, FinalEvaluation, judge
from mlxlab.experiment.final_evaluation.findings import learned_nothing_sentence
from mlxlab.experiment.final_evaluation.notes import bands_of, findings, missed_classes, notes
from mlxlab.experiment.final_evaluation.verdict import best_baseline, verdict
from mlxlab.experiment.run_metrics import FILE, RunMetrics, describe_counted, interval_text, number
from mlxlab.files.atomic import without_nonfinite, write_atomic, write_json
from mlxlab.markdown import markdown_table
from mlxlab.metric_names import VALID, VALID_LOSS, lower_is_better
from mlxlab.models.model import Model, count_parameters, count_trainable
from mlxlab.training.evaluate import Evaluation
from mlxlab.training.metrics.labelled import as_thresholds, main_metric
from mlxlab.training.state import TrainState
from mlxlab.training.stop_rule import Stop
from mlxlab.wording import counted, percent

logger = logging.getLogger(__name__)
V = TypeVar("V")


def write_report(
    state: TrainState,
    results: FinalEvaluation,
    folder: Path,
    objective: str,
) -> str:
    """Writes `summary.md` and `metrics.json`; returns the summary as text.

    Args:
        objective: the metric that chose the best evaluation.
    """
    history, progress, best = state.history, state.progress, state.history.best_metrics
    evaluations = len(history.evaluations)
    paragraphs = [
        f"no evaluation was finite: {counted(evaluations, 'evaluation')}, {counted(progress.step, 'step')}"
    ]
    if best:
        at = f"step {history.best_step:,} of {progress.step:,}"
        heading = f"best of {counted(evaluations, 'evaluation')} by {objective}, {at}:"
        rows = [(name.removeprefix(VALID), value) for name, value in best.items()]
        paragraphs = [
            f"{heading}\n{results_table(results) if results.splits else value_table('model', rows)}"
        ]
    if results.splits:
        paragraphs += [" ".join(notes(results, history.best_step)), *baseline_report(results)]
        if lines := findings(results):
            paragraphs.append("\n".join(lines))
    for name, values in results.text_baselines.metrics.items():
        listed = ", ".join(f"{key} {number(value)}" for key, value in values.items())
        paragraphs.append(f"{name}, a baseline: {listed}")
    if not results.splits and VALID_LOSS in best:
        measured = results.text_baselines.metrics.items()
        losses = {name: values[VALID_LOSS] for name, values in measured if VALID_LOSS in values}
        paragraphs += learned_nothing_sentence("loss", best[VALID_LOSS], losses)
    if results.text_baselines.counted:
        paragraphs.append(describe_counted(results.text_baselines.counted))
    if history.reference:
        paragraphs.append(side_by_side(history.reference))
    if history.events:
        lines = [f"- step {step}: {text}" for step, text in history.events]
        paragraphs.append("\n".join(["changes during the run:", *lines]))
    if progress.nonfinite_steps:
        paragraphs.append(
            f"{counted(progress.nonfinite_steps, 'step')} skipped: loss or gradient not finite"
        )
    text = "\n\n".join(paragraphs)
    write_atomic(folder / "summary.md", f"# {folder.name}\n\n{text}\n")
    write_json(folder / FILE, without_nonfinite(run_metrics(state, results)))
    return text


def run_metrics(state: TrainState, results: FinalEvaluation) -> RunMetrics:
    history, splits = state.history, {each.split: each for each in results.splits}
    evaluated = {each.split: each for each in results.all_splits}
    names = dict.fromkeys(name for each in results.splits for name in each.baselines)
    metrics: RunMetrics = {
        "best_step": history.best_step,
        "steps": state.progress.step,
        "main_metric": results.main_metric if splits else None,
        "metrics": {**history.best_metrics},
        "final": {**final_metrics(history)},
        "test": _keyed({split: each.metrics for split, each in splits.items() if split == "test"}),
        "out_of_fold": {**results.out_of_fold.metrics} if results.out_of_fold else {},
        "intervals": _keyed({split: each.intervals for split, each in evaluated.items()}),
        "baselines": {
            **{
                name: _keyed(
                    {split: each.baselines.get(name, {}) for split, each in splits.items()}
                )
                for name in names
            },
            **{name: {**values} for name, values in results.text_baselines.metrics.items()},
        },
        "gains": {
            name: {
                f"{split}/{results.main_metric}": each.gains[name] for split, each in splits.items()
            }
            for name in names
        },
        "rows": {split: len(each.evaluation.ids) for split, each in evaluated.items()},
        "reference": {name: {**metrics} for name, metrics in history.reference.items()},
        "never_predicted": {split: missed_classes(results, each) for split, each in splits.items()},
        "prediction_bands": {
            split: bands
            for split, each in splits.items()
            if (bands := bands_of(results, each)) is not None
        },
        "evaluations": [*history.evaluations],
        "state": "finished",
    }
    if text := results.text_baselines.counted:
        metrics["counted_text"] = text
    return metrics


def write_pruned(state: TrainState, task: Task, stop: Stop, reason: str, folder: Path) -> None:
    """Writes the `metrics.json` of a run that a sweep stopped, which nothing has evaluated but the training loop."""
    metrics = run_metrics(state, FinalEvaluation(task))
    metrics |= {"state": stop, "reason": reason}
    write_json(folder / FILE, without_nonfinite(metrics))


def _keyed(values: Mapping[str, Mapping[str, V]]) -> dict[str, V]:
    return {
        f"{split}/{name}": value
        for split, metrics in values.items()
        for name, value in metrics.items()
    }


def results_table(results: FinalEvaluation, name: str = "") -> str:
    """The metrics of each split, or of data of this name, with the intervals of those that have one."""
    head = ["model"]
    rows = [[name] for name in results.splits[0].metrics]
    for each in results.all_splits:
        split = name or each.split.replace("_", " ")
        head += [f"{split} ({len(each.evaluation.ids):,} rows)", "95 % interval"]
        for row in rows:
            value = each.metrics.get(row[0], nan)
            interval = interval_text(each.intervals.get(row[0]))
            row += ["-" if isnan(value) else number(value), interval]
    return markdown_table(head, rows)


def baseline_report(results: FinalEvaluation, name: str = "") -> list[str]:
    """The main metric of model and baselines, best first, and a sentence on which is better; nothing without one.

    Args:
        name: of data other than the splits of the run.
    """
    metric, splits = results.main_metric, [each for each in results.splits if each.baselines]
    if not splits:
        return []
    values = {
        method: [each.baselines[method][metric] for each in splits if method in each.baselines]
        for method in splits[0].baselines
    }
    values[MODEL] = [each.metrics[metric] for each in splits]
    ranking = sorted(
        values.items(), key=lambda item: item[1][0], reverse=not lower_is_better(metric)
    )
    table = markdown_table(
        [f"{metric} of", *(name or each.split for each in splits)],
        [[method, *map(number, row), *[""] * (len(splits) - len(row))] for method, row in ranking],
    )
    last = splits[-1]
    baselines = {method: values[metric] for method, values in last.baselines.items()}
    gain = last.gains[best_baseline(metric, baselines)]
    return [
        f"{table}\n\n{verdict(name or last.split, metric, last.metrics[metric], baselines, gain)}"
    ]


def judge_evaluation(
    task: Task,
    objective: str,
    step: int,
    evaluation: Evaluation,
    baselines: Sequence[Baseline],
    thresholds: Sequence[float],
) -> FinalEvaluation:
    """The intervals and baselines of an evaluation of its own, on labelled data.

    Args:
        objective: that of the run.
    """
    predictions = {MODEL: evaluation.outputs} | {
        each.name: each.valid[evaluation.positions] for each in baselines
    }
    chosen = as_thresholds(thresholds)
    main = main_metric(task, objective)
    split = judge(
        task,
        main,
        "valid",
        evaluation,
        predictions,
        {each: chosen if each == MODEL else 0.5 for each in predictions},
    )
    return FinalEvaluation(task, main, step, (split,), thresholds=chosen)


def describe_evaluation(results: FinalEvaluation, name: str) -> str:
    """The table and the sentences of `write_report` for an evaluation of its own; `name` is that of its data, or ""."""
    paragraphs = [results_table(results, name), " ".join(notes(results, results.step))]
    return "\n\n".join([*paragraphs, *baseline_report(results, name)])


def final_metrics(history: History) -> dict[str, float]:
    """Metrics of the last evaluation, also if it was made before a resume."""
    points = (
        {k: v for k, v in metrics.items() if k.startswith(VALID)}
        for _, metrics in reversed(history.curve)
    )
    return next(filter(None, points), {})


def describe_training(model: Model) -> list[str]:
    """A line for the user where weights are frozen."""
    trained, total = count_trainable(model), count_parameters(model)
    return (
        [f"trains {trained:,} of {total:,} parameters ({percent(trained / total, 2)})"]
        if trained < total
        else []
    )


def warn_of_long_rows(data: DataModule) -> None:
    """A warning if many rows are longer than `data.seq_len`."""
    if isinstance(data, MeasuresRows) and data.row_lengths.share > MANY:
        lengths = data.row_lengths
        enough = f"data.seq_len={lengths.needed} holds {percent(1 - MANY, 0)} whole"
        logger.warning(f"{lengths.describe()}; {enough}")


def side_by_side(measured: dict[str, dict[str, float]]) -> str:
    """A column of metrics for each model, and the size of the student as a share of the teacher's."""
    student, teacher = measured["student"], measured["teacher"]
    formats = {name: ",.0f" if name == "parameters" else ".4f" for name in student}
    cells = {
        name: [
            format(each[name], formats[name]) if name in each else "" for each in measured.values()
        ]
        for name in student
    }
    rows = [[name, *values] for name, values in cells.items()]
    share = student["parameters"] / teacher["parameters"]
    return (
        f"{markdown_table(['at the last step', *measured], rows)}\n\n"
        f"The student has {percent(share)} of the teacher's parameters."
    )


def value_table(title: str, rows: Iterable[tuple[str, float]]) -> str:
    return markdown_table([title, "value"], [(name, number(value)) for name, value in rows])


def log_lines(*lines: str) -> None:
    """Logs lines for the user, which go to standard error; results go to standard output."""
    for line in lines:
        logger.info(line)
