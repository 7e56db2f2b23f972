"""The final evaluation of a run as a record: results of each split, and what its plots need."""

from collections.abc import Mapping, Sequence

import numpy as np

from mlxlab.data.batch import Task
from mlxlab.experiment.collect_record import without_split
from mlxlab.experiment.final_evaluation.evaluate import FinalEvaluation, SplitResults
from mlxlab.experiment.final_evaluation.files import class_names, count
from mlxlab.experiment.final_evaluation.prediction_bands import prediction_bands
from mlxlab.record.run_record import (
    ClassResult,
    Diagnostics,
    Evaluation,
    Metrics,
    Mistake,
    SplitResult,
)
from mlxlab.training.evaluate import Evaluation as Predictions
from mlxlab.training.metrics.calibration import reliability
from mlxlab.training.metrics.classification import confusion_matrix
from mlxlab.training.metrics.labelled import predicted_classes
from mlxlab.training.metrics.ranking import precision_recall
from mlxlab.training.state import TrainState

MAX_CLASSES = 20  # A confusion matrix has at most so many.
MAX_POINTS = 200  # A curve or a scatter plot has at most so many.
MAX_TEXT = 400  # characters of a mistake
BITS = "bits_per_byte"


def evaluation_record(
    state: TrainState, results: FinalEvaluation, mistakes: Sequence[tuple[object, ...]]
) -> Evaluation:
    """What was measured of a run that ended."""
    history = state.history
    models: dict[str, Metrics] = {name: {**metrics} for name, metrics in history.reference.items()}
    if not results.splits:
        return _text_record(history.best_metrics, results, models)
    splits = [split_record(results, each) for each in results.all_splits]
    splits[0].metrics = without_split(history.best_metrics) | splits[0].metrics
    splits[0].diagnostics = diagnostics(results, results.splits[0].evaluation)
    return Evaluation(
        main_metric=results.main_metric,
        results=splits,
        models=models,
        mistakes=[
            Mistake(str(row), str(text)[:MAX_TEXT], str(true), str(predicted), float(str(score)))
            for row, text, true, predicted, score in mistakes
        ],
    )


def _text_record(
    best: Mapping[str, float], results: FinalEvaluation, models: dict[str, Metrics]
) -> Evaluation:
    """A language model: its best evaluation, and baselines that count tokens."""
    measured = results.text_baselines
    result = SplitResult("valid", 0, without_split(best))
    result.baselines = {name: without_split(each) for name, each in measured.metrics.items()}
    is_in_bits = BITS in result.metrics and any(BITS in each for each in result.baselines.values())
    return Evaluation(
        main_metric=BITS if is_in_bits else "loss",
        results=[result] if best else [],
        counted_tokens=measured.counted_tokens,
        models=models,
    )


def split_record(results: FinalEvaluation, split: SplitResults) -> SplitResult:
    """A split of labelled rows, without what plots need."""
    evaluation, task = split.evaluation, results.task
    record = SplitResult(
        split=split.split,
        rows=len(evaluation.ids),
        metrics={**split.metrics},
        intervals=_finite(split.intervals),
        baselines={name: {**metrics} for name, metrics in split.baselines.items()},
        gains=_finite(split.gains),
    )
    if task.kind == "regression":
        record.diagnostics.two_values = prediction_bands(evaluation.outputs, evaluation.targets)
        return record

    counts = count(results, evaluation)
    scores = (counts.precision.tolist(), counts.recall.tolist(), counts.f1.tolist())
    columns = (class_names(task), *scores, counts.support.tolist())
    record.classes = [ClassResult(*row) for row in zip(*columns, strict=True)]
    missed = [n for n, each in enumerate(record.classes) if each.rows and not counts.predicted[n]]
    missed.sort(key=lambda n: -record.classes[n].rows)
    record.never_predicted = {record.classes[n].name: record.classes[n].rows for n in missed}
    return record


def _finite(intervals: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    return {name: pair for name, pair in intervals.items() if np.isfinite(pair).all()}


def diagnostics(results: FinalEvaluation, evaluation: Predictions) -> Diagnostics:
    """What plots show: probabilities (N, C) or values (N,) against targets."""
    task, outputs, targets = results.task, evaluation.outputs, evaluation.targets
    if task.kind == "regression":
        points = _spread(len(targets))
        pairs = zip(targets[points].tolist(), outputs[points].tolist(), strict=True)
        bands = prediction_bands(outputs, targets)
        return Diagnostics(predicted=list(pairs), two_values=bands)
    if task.kind == "multi_label":
        return Diagnostics(reliability=_reliability(outputs.ravel(), targets.ravel() > 0))

    predicted = predicted_classes(task, outputs, results.thresholds)
    right = outputs.argmax(axis=1) == targets
    names, counts = confusion(task, predicted, targets)
    shown = Diagnostics(
        names=names, confusion=counts, reliability=_reliability(outputs.max(axis=1), right)
    )
    if task.num_classes == 2:
        positive = targets == task.positive_class
        shown.positive_share = float(positive.mean())
        shown.precision_recall = _precision_recall(outputs[:, task.positive_class], positive)
    return shown


def confusion(
    task: Task, predicted: np.ndarray, targets: np.ndarray
) -> tuple[list[str], list[list[int]]]:
    """Names of classes and their counts: all classes in order, or of many those with the most errors."""
    counts = confusion_matrix(predicted, targets, task.num_classes)
    errors = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    most = np.argsort(-errors, kind="stable")[:MAX_CLASSES]
    shown = np.sort(most)
    names = class_names(task)
    return [names[index] for index in shown], counts[np.ix_(shown, shown)].tolist()


def _reliability(confidence: np.ndarray, right: np.ndarray) -> list[tuple[float, float, int]]:
    bins = reliability(confidence, right)
    columns = (bins.confidence.tolist(), bins.accuracy.tolist(), bins.counts.tolist())
    return [row for row in zip(*columns, strict=True) if row[2]]


def _precision_recall(scores: np.ndarray, positive: np.ndarray) -> list[tuple[float, float]]:
    """(recall, precision) by falling threshold."""
    if not positive.any():
        return []
    precision, recall = precision_recall(scores, positive)
    points = _spread(len(recall))
    return list(zip(recall[points].tolist(), precision[points].tolist(), strict=True))


def _spread(count: int) -> np.ndarray:
    """Positions of at most `MAX_POINTS` of so many items."""
    return np.unique(np.linspace(0, count - 1, min(count, MAX_POINTS)).astype(int))
