"""The results of a model on the labelled rows of a split: metrics with intervals, baselines, classes, plots."""

from collections.abc import Mapping

import numpy as np

from mlxlab.data.batch import Task
from mlxlab.record.run_record import ClassResult, Diagnostics, Interval, Split, SplitResult
from mlxlab.schema.metric_names import sign_of
from mlxlab.stats.bootstrap import (
    Statistic,
    gain_interval,
    interval,
    proportion_interval,
    resample,
)
from mlxlab.training.evaluate import Evaluation
from mlxlab.training.metrics.classification import (
    confusion_matrix,
    count_classes,
    precision_recall,
    reliability,
)
from mlxlab.training.metrics.labelled import (
    Thresholds,
    count_labels,
    labelled_metrics,
    predicted_classes,
)
from mlxlab.training.metrics.resampled import resampled_metrics
from mlxlab.views.verdict import MODEL

MAX_CLASSES = 20  # A confusion matrix has at most so many.
MAX_POINTS = 200  # A curve or a scatter plot has at most so many.


def compare_with_baselines(
    task: Task,
    main: str,
    split: Split,
    evaluation: Evaluation,
    baselines: Mapping[str, np.ndarray],
    thresholds: Mapping[str, Thresholds],
) -> SplitResult:
    """Metrics and intervals of the model, and how much better it is than baselines on the same rows.

    Args:
        main: the metric of the gains.
        baselines: their outputs by name.
        thresholds: by the name of a baseline or `MODEL`; 0.5 for others.
    """
    targets = evaluation.targets
    rows = len(targets)
    own_threshold = thresholds.get(MODEL, 0.5)
    metrics = labelled_metrics(task, evaluation.outputs, targets, own_threshold)
    own = resampled_metrics(task, evaluation.outputs, targets, own_threshold)
    statistics: dict[tuple[str, str], Statistic] = {(MODEL, name): own[name] for name in own}
    for name, outputs in baselines.items():
        resampled = resampled_metrics(task, outputs, targets, thresholds.get(name, 0.5))
        statistics[name, main] = resampled[main]
    values = resample(statistics, rows)

    intervals = {name: interval(values[MODEL, name]) for name in own}
    if task.kind == "classification" and metrics["accuracy"] in (0.0, 1.0):
        # All resamples are equal.
        intervals["accuracy"] = proportion_interval(metrics["accuracy"], rows)
    result = SplitResult(split, rows, {**evaluation.metrics, **metrics}, _finite(intervals))
    gains = {}
    is_proportion = main == "accuracy"
    answers = _answers(task, evaluation.outputs, targets, own_threshold)
    for name, outputs in baselines.items():
        threshold = thresholds.get(name, 0.5)
        result.baselines[name] = {**labelled_metrics(task, outputs, targets, threshold)}
        differs = answers != _answers(task, outputs, targets, threshold)
        different = int(differs.reshape(rows, -1).any(axis=1).sum())
        gain = sign_of(main) * (values[MODEL, main] - values[name, main])
        gains[name] = gain_interval(gain, different, rows, is_proportion=is_proportion)
    result.gains = _finite(gains)
    return result


def _answers(
    task: Task, outputs: np.ndarray, targets: np.ndarray, threshold: Thresholds
) -> np.ndarray:
    """What two models are compared by: which classes are right, or the outputs."""
    if task.kind == "classification":
        return predicted_classes(task, outputs, threshold) == targets
    return outputs


def _finite(intervals: Mapping[str, Interval]) -> dict[str, Interval]:
    return {name: pair for name, pair in intervals.items() if np.isfinite(pair).all()}


def add_predictions(
    result: SplitResult, task: Task, evaluation: Evaluation, thresholds: Thresholds
) -> None:
    """Adds what the predictions say of each class."""
    if task.kind == "regression":
        return
    if task.kind == "multi_label":
        counts = count_labels(evaluation.outputs >= thresholds, evaluation.targets > 0)
    else:
        predicted = predicted_classes(task, evaluation.outputs, thresholds)
        counts = count_classes(predicted, evaluation.targets, task.num_classes)
    scores = (counts.precision, counts.recall, counts.f1, counts.support)
    columns = [class_names(task), *(values.tolist() for values in scores)]
    result.classes = [ClassResult(*row) for row in zip(*columns, strict=True)]
    is_missed = (counts.predicted == 0) & (counts.support > 0)
    missed = [result.classes[index] for index in np.flatnonzero(is_missed)]
    missed.sort(key=lambda each: -each.rows)
    result.never_predicted = {each.name: each.rows for each in missed}


def class_names(task: Task) -> tuple[str, ...]:
    """The names of the classes or labels; their numbers where they have none."""
    return task.labels or tuple(map(str, range(task.num_classes)))


def diagnose(task: Task, evaluation: Evaluation, thresholds: Thresholds) -> Diagnostics:
    """What the plots of a split show: a few points of its probabilities or values against the targets."""
    outputs = evaluation.outputs
    targets = evaluation.targets
    if task.kind == "regression":
        points = _spread(len(targets))
        pairs = zip(targets[points].tolist(), outputs[points].tolist(), strict=True)
        return Diagnostics(predicted=list(pairs))
    if task.kind == "multi_label":
        return Diagnostics(reliability=_reliability(outputs.ravel(), targets.ravel() > 0))

    names, counts = confusion(task, predicted_classes(task, outputs, thresholds), targets)
    is_right = outputs.argmax(axis=1) == targets
    shown = Diagnostics(names, counts, _reliability(outputs.max(axis=1), is_right))
    if task.num_classes == 2:
        is_positive = targets == task.positive_class
        shown.positive_share = float(is_positive.mean())
        if is_positive.any():
            scores = outputs[:, task.positive_class]
            precision, recall = precision_recall(scores, is_positive)
            curve = np.stack([recall, precision], axis=1)[_spread(len(recall))]
            shown.precision_recall = [(x, y) for x, y in curve.tolist()]
    return shown


def confusion(
    task: Task, predicted: np.ndarray, targets: np.ndarray
) -> tuple[list[str], list[list[int]]]:
    """Names of classes and their counts: all classes in order, or of many those with the most errors."""
    counts = confusion_matrix(predicted, targets, task.num_classes)
    errors = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    worst = np.argsort(-errors, kind="stable")
    shown = np.sort(worst[:MAX_CLASSES])
    names = class_names(task)
    return [names[index] for index in shown], counts[np.ix_(shown, shown)].tolist()


def _reliability(confidence: np.ndarray, is_right: np.ndarray) -> list[tuple[float, float, int]]:
    bins = reliability(confidence, is_right)
    columns = (bins.confidence.tolist(), bins.accuracy.tolist(), bins.counts.tolist())
    return [row for row in zip(*columns, strict=True) if row[2]]


def _spread(count: int) -> np.ndarray:
    """Positions of at most `MAX_POINTS` of so many items."""
    return np.unique(np.linspace(0, count - 1, min(count, MAX_POINTS)).astype(int))
