"""Files of the final evaluation: per_class.csv, mistakes.csv and inference/thresholds.json."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from mlxlab.data.batch import Task
from mlxlab.data.dataset import DataModule, LocatesRows
from mlxlab.experiment.final_evaluation.evaluate import FinalEvaluation
from mlxlab.files.atomic import write_atomic, write_json
from mlxlab.files.spreadsheet import defuse
from mlxlab.record import run_record as records
from mlxlab.tracking.tracker import Tracker
from mlxlab.training.evaluate import Evaluation
from mlxlab.training.metrics.classification import ClassCounts, count_classes
from mlxlab.training.metrics.labelled import predicted_classes
from mlxlab.training.metrics.multi_label import count_labels

MISTAKES = 50


MistakeRow: TypeAlias = tuple[object, str, str, str, str]  # row, text, true, predicted, score


def write_files(
    results: FinalEvaluation,
    record: records.Evaluation,
    rows: Sequence[MistakeRow],
    data: DataModule,
    tracker: Tracker,
    folder: Path,
) -> None:
    """Writes the files that the task of a run has, and logs them as artifacts."""
    task = results.task
    names = task.decided_labels
    if names and isinstance(results.thresholds, np.ndarray):
        path = folder / "inference" / "thresholds.json"
        write_json(path, dict(zip(names, results.thresholds.tolist(), strict=True)))
        tracker.log_artifact(path, "config/inference")
    last = "error" if task.kind == "regression" else "probability"
    first = "row" if isinstance(data, LocatesRows) else "id"
    write_csv(folder / "mistakes.csv", (first, "text", "true", "predicted", last), rows)
    tracker.log_artifact(folder / "mistakes.csv")
    if task.kind != "regression":
        head = ("split", "class", "precision", "recall", "f1", "support")
        write_csv(folder / "per_class.csv", head, _per_class(record))
        tracker.log_artifact(folder / "per_class.csv")


def _per_class(record: records.Evaluation) -> Iterable[tuple[object, ...]]:
    for result in record.results:
        if result.split == "out_of_fold":
            continue
        for each in result.classes:
            scores = [f"{value:.4f}" for value in (each.precision, each.recall, each.f1)]
            yield (result.split, each.name, *scores, each.rows)


def count(results: FinalEvaluation, evaluation: Evaluation) -> ClassCounts:
    outputs, targets = evaluation.outputs, evaluation.targets
    if results.task.kind == "multi_label":
        return count_labels(outputs >= results.thresholds, targets > 0)
    predicted = predicted_classes(results.task, outputs, results.thresholds)
    return count_classes(predicted, targets, results.task.num_classes)


def mistakes(results: FinalEvaluation, data: DataModule) -> Iterable[MistakeRow]:
    """The most confident mistakes, or the largest errors: row, text, true, predicted, and probability or error.

    They are of the validation rows, and of the training rows out of fold. A row is where it stands, or its id if the
    data set does not know that.
    """
    task = results.task
    evaluations = [results.splits[0].evaluation]
    if results.out_of_fold is not None:
        evaluations.append(results.out_of_fold.evaluation)
    outputs = np.concatenate([each.outputs for each in evaluations])
    targets = np.concatenate([each.targets for each in evaluations])
    all_ids = np.concatenate([each.ids for each in evaluations])
    names = np.array(class_names(task), dtype=object)
    if task.kind == "regression":
        size, wrong = np.abs(outputs - targets), outputs != targets
    elif task.kind == "classification":
        predicted = predicted_classes(task, outputs, results.thresholds)
        size, wrong = outputs[np.arange(len(outputs)), predicted], predicted != targets
    else:  # the probability of the most confident wrong decision
        differs = (outputs >= results.thresholds) != (targets > 0)
        size, wrong = (
            np.where(differs, np.abs(outputs - targets), 0).max(axis=1),
            differs.any(axis=1),
        )
    worst = [row for row in np.argsort(-size, kind="stable").tolist() if wrong[row]][:MISTAKES]
    ids = all_ids[worst].tolist()
    texts = list(data.texts(ids)) or [""] * len(ids)
    places = [data.location(each) for each in ids] if isinstance(data, LocatesRows) else ids
    for row, place, text in zip(worst, places, texts, strict=True):
        if task.kind == "regression":
            yield place, text, f"{targets[row]:.6g}", f"{outputs[row]:.6g}", f"{size[row]:.6g}"
        elif task.kind == "classification":
            yield place, text, names[targets[row]], names[predicted[row]], f"{size[row]:.4f}"
        else:
            held = (
                names[values] for values in (targets[row] > 0, outputs[row] >= results.thresholds)
            )
            yield place, text, *("; ".join(labels) for labels in held), f"{size[row]:.4f}"


def class_names(task: Task) -> tuple[str, ...]:
    """The names of the classes or labels; their numbers where they have none."""
    return task.labels or tuple(map(str, range(task.num_classes)))


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a table in UTF-8; an apostrophe before a text that a spreadsheet would run as a formula."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        [head, *([defuse(str(value)) for value in row] for row in rows)]
    )
    write_atomic(path, text.getvalue().encode("utf-8", errors="backslashreplace"))
