"""The evaluation at the end of a run, of its best weights: validation rows, and once the test rows.

The metrics get intervals, and the baselines are compared on the same rows.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice, repeat
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxlab.checkpoint.manifest import CorruptCheckpointError
from mlxlab.checkpoint.names import FOLDER, folder_name
from mlxlab.checkpoint.store import check_arrays, load_checkpoint
from mlxlab.data.batch import Batch, Task
from mlxlab.data.dataset import DataModule, LabelledRows
from mlxlab.errors import DataError, UserError
from mlxlab.evaluation.labelled_results import (
    add_predictions,
    class_names,
    compare_with_baselines,
    diagnose,
)
from mlxlab.evaluation.parts.model import saved_architecture
from mlxlab.files.atomic import write_atomic, write_json
from mlxlab.files.spreadsheet import csv_lines
from mlxlab.inference.restore import THRESHOLDS_FILE
from mlxlab.models.baselines.estimators import to_data_units
from mlxlab.models.baselines.mixture import load_out_of_fold
from mlxlab.models.baselines.ngrams import ngram_baselines
from mlxlab.models.build import Architecture
from mlxlab.models.layers import named_parameters
from mlxlab.past_runs.collect_record import without_split
from mlxlab.record.run_record import Evaluation, Mistake, Split, SplitResult
from mlxlab.terminal.wording import one_line
from mlxlab.tracking.tracker import Tracker
from mlxlab.training.evaluate import Evaluation as Predictions
from mlxlab.training.evaluate import evaluate
from mlxlab.training.metrics.classification import best_threshold
from mlxlab.training.metrics.labelled import Thresholds, main_metric, predicted_classes
from mlxlab.training.state import TrainState
from mlxlab.views.verdict import MODEL

MAX_TEXT_BATCHES = 64  # Validation and the counts of n-grams each read at most so many.
MAX_COUNTED_TOKENS = 1_000_000
MAX_MISTAKES = 50
MAX_TEXT = 400  # characters of a mistake
MISTAKES = "mistakes.csv"
THRESHOLDS = f"inference/{THRESHOLDS_FILE}"

logger = logging.getLogger(__name__)


class EvaluationLimits(NamedTuple):
    """Batches of each split at most; None evaluates all."""

    valid: int | None = None
    test: int | None = None


class FinalEvaluation(NamedTuple):
    """What was measured at the end of a run, and the thresholds by which its labels are decided."""

    record: Evaluation
    thresholds: Thresholds = 0.5


def evaluate_at_end(
    state: TrainState,
    data: DataModule,
    folder: Path,
    objective: str,
    limits: EvaluationLimits,
    should_stop: Callable[[], bool] = lambda: False,
) -> FinalEvaluation | None:
    """Evaluates the best weights of a run that ended, and the baselines of its data; None once `should_stop` is true.

    Args:
        folder: the run folder, with its checkpoints.
        objective: the metric that chose the best evaluation.
    """
    results: FinalEvaluation | None
    if state.history.best is None:
        results = FinalEvaluation(Evaluation())
    elif data.task.kind == "language_modelling":
        results = FinalEvaluation(_evaluate_text(state, data, limits.valid))
    else:
        results = _evaluate_rows(state, data, folder, objective, limits, should_stop)
    if results is not None:
        models = state.history.reference.items()
        results.record.models = {name: {**metrics} for name, metrics in models}
    return results


def forget_evaluation(folder: Path) -> None:
    """Removes what the evaluation of a run wrote that is trained on."""
    from mlxlab.views.pages import SUMMARY

    for name in (SUMMARY, MISTAKES, THRESHOLDS):
        (folder / name).unlink(missing_ok=True)


def _evaluate_text(state: TrainState, data: DataModule, max_batches: int | None) -> Evaluation:
    """The best evaluation of a language model, and baselines that count tokens."""
    limit = min(max_batches or MAX_TEXT_BATCHES, MAX_TEXT_BATCHES)
    valid = list(islice(data.valid, limit))
    trained: list[Batch] = []
    if valid and not data.task.masked:
        try:
            trained = trained_batches(state)
        except UserError as error:
            logger.warning(f"no bigram and trigram baselines: {one_line(str(error), 300)}")
    baselines = ngram_baselines(data.task, valid, trained)
    result = SplitResult("valid", 0, without_split(state.history.best_metrics))
    result.baselines = {name: {**metrics} for name, metrics in baselines.items()}
    record = Evaluation(main_metric="loss")
    if "bits_per_byte" in result.metrics and "bits_per_byte" in baselines["unigram"]:
        record.main_metric = "bits_per_byte"
    if result.metrics:
        record.results.append(result)
    for batch in trained:
        record.counted_tokens += int(np.count_nonzero(batch.loss_weights > 0))
    return record


def trained_batches(state: TrainState) -> list[Batch]:
    """The first batches of the run, none of examples that it was not trained on; the position is restored.

    The last batch of an epoch may hold fewer examples than others; all hold more where the batch size was smaller.
    """
    data = state.data
    remaining = state.progress.samples
    limit = min(state.progress.step, MAX_TEXT_BATCHES)
    batches: list[Batch] = []
    tokens = 0
    position = data.state_dict()
    try:
        data.load_state_dict(state.first_position)
        for batch in islice(chain.from_iterable(repeat(data)), limit):
            remaining -= int(np.count_nonzero(batch.example_ids >= 0))
            if tokens > MAX_COUNTED_TOKENS or (batches and remaining < 0):
                break
            batches.append(batch)
            tokens += batch.tokens.size
        return batches
    finally:
        data.load_state_dict(position)


def _evaluate_rows(
    state: TrainState,
    data: DataModule,
    folder: Path,
    objective: str,
    limits: EvaluationLimits,
    should_stop: Callable[[], bool],
) -> FinalEvaluation | None:
    task = data.task
    measured: dict[Split, Predictions] = {}
    with best_weights(state, folder) as model:
        valid = evaluate(model, data.valid, task, limit=limits.valid, should_stop=should_stop)
        if valid is None:
            return None
        measured["valid"] = valid
        if next(iter(data.test), None) is not None:
            test = evaluate(model, data.test, task, limit=limits.test, should_stop=should_stop)
            if test is None:
                return None
            measured["test"] = test
    out_of_fold = _out_of_fold(data, folder)
    if out_of_fold is not None:
        measured["out_of_fold"] = out_of_fold

    from mlxlab.models.baselines.predict import predict_baselines

    main = main_metric(task, objective)
    # The thresholds of the model are chosen on its training rows out of fold, if there are any.
    chosen = out_of_fold or valid
    own_thresholds = choose_thresholds(task, main, chosen.outputs, chosen.targets)
    thresholds = {MODEL: own_thresholds}
    guesses: dict[Split, dict[str, np.ndarray]] = {"valid": {}, "test": {}, "out_of_fold": {}}
    for each in predict_baselines(data):
        outputs = each.valid[valid.positions]
        thresholds[each.name] = choose_thresholds(task, main, outputs, valid.targets)
        guesses["valid"][each.name] = each.valid
        if len(each.test):
            guesses["test"][each.name] = each.test

    results = []
    for split, predictions in measured.items():
        baselines = {name: rows[predictions.positions] for name, rows in guesses[split].items()}
        used = thresholds
        if split == "valid":
            used = {}  # The thresholds were chosen on these rows: their metrics are with 0.5.
        result = compare_with_baselines(task, main, split, predictions, baselines, used)
        add_predictions(result, task, predictions, own_thresholds)
        results.append(result)
    results[0].metrics = without_split(state.history.best_metrics) | results[0].metrics
    results[0].diagnostics = diagnose(task, valid, own_thresholds)
    unseen = [each for split, each in measured.items() if split != "test"]
    mistakes = find_mistakes(task, unseen, own_thresholds, data)
    record = Evaluation(main_metric=main, results=results, mistakes=mistakes)
    return FinalEvaluation(record, own_thresholds)


def _out_of_fold(data: DataModule, folder: Path) -> Predictions | None:
    """What a mixture says of the training rows; None where none was fitted. Their loss is not known."""
    if not isinstance(data, LabelledRows):
        return None
    task = data.task
    try:
        rows = load_out_of_fold(folder, task.num_classes, len(data.training_targets))
    except DataError as error:
        logger.warning(str(error))
        return None
    if rows is None:
        return None
    outputs = rows.outputs
    targets = to_data_units(rows.targets, task)
    if task.kind == "regression":
        outputs = to_data_units(outputs[:, 0], task)
    return Predictions({}, np.arange(len(rows.ids)), rows.ids, targets, outputs)


@contextmanager
def best_weights(state: TrainState, folder: Path) -> Iterator[nn.Module]:
    """The model with the weights of the best checkpoint; those of the last step if it is unusable."""
    last = state.progress.step
    best = state.history.best_step
    path = folder / FOLDER / folder_name(best)
    loaded = None
    if best != last:
        try:
            loaded = _load_weights(state, path)
        except (OSError, CorruptCheckpointError, UserError) as error:
            logger.warning(f"{path}: {error}; the final evaluation is of the last step, {last}")
    if loaded is None:
        with state.eval_weights() as model:
            yield model
        return
    model, weights = loaded
    before = model.parameters()
    model.load_weights(list(weights.items()))
    try:
        with state.sharding.gathered(model):
            yield model
    finally:
        model.update(before)


def _load_weights(state: TrainState, path: Path) -> tuple[nn.Module, dict[str, mx.array]]:
    """The weights of a checkpoint that fit the model in training, or one of another architecture."""
    checkpoint = load_checkpoint(path)
    stored = Architecture(checkpoint.state["architecture"], checkpoint.state["vocab_size"])
    model = state.model
    if stored != state.architecture:
        model = state.new_model(saved_architecture(checkpoint))
    weights = state.sharding.split(checkpoint.weights)
    check_arrays(weights, named_parameters(model), "model")
    return model, weights


def choose_thresholds(
    task: Task, main: str, outputs: np.ndarray, targets: np.ndarray
) -> Thresholds:
    """The thresholds with the greatest F1 on these examples: of labels, and of two classes compared by F1."""
    if task.kind == "multi_label":
        columns = zip(outputs.T, targets.T > 0, strict=True)
        return np.array([best_threshold(*column) for column in columns], np.float32)
    if main == "f1":
        positive = task.positive_class
        return np.array([best_threshold(outputs[:, positive], targets == positive)], np.float32)
    return 0.5


def find_mistakes(
    task: Task, evaluations: Sequence[Predictions], thresholds: Thresholds, data: DataModule
) -> list[Mistake]:
    """The most confident mistakes, or the largest errors.

    A row is where it stands, or its id if the data set does not know that.
    """
    outputs = np.concatenate([each.outputs for each in evaluations])
    targets = np.concatenate([each.targets for each in evaluations])
    ids = np.concatenate([each.ids for each in evaluations])
    names = np.array(class_names(task), dtype=object)
    if task.kind == "classification":
        guesses = predicted_classes(task, outputs, thresholds)
        scores = outputs[np.arange(len(outputs)), guesses]
    elif task.kind == "multi_label":
        guesses = outputs >= thresholds
        targets = targets > 0
        # The probability of the most confident wrong decision.
        scores = np.where(guesses != targets, np.abs(outputs - targets), 0).max(axis=1)
    else:
        guesses = outputs
        scores = np.abs(outputs - targets)
    is_wrong = guesses != targets
    if task.kind == "multi_label":
        is_wrong = is_wrong.any(axis=1)

    def describe(value: np.ndarray) -> str:
        if task.kind == "regression":
            return f"{value:.6g}"
        return "; ".join(np.atleast_1d(names[value]))

    order = np.argsort(-scores, kind="stable")
    worst = order[is_wrong[order]][:MAX_MISTAKES]
    worst_ids = ids[worst].tolist()
    location = getattr(data, "location", str)
    rows = map(location, worst_ids)
    texts = list(data.texts(worst_ids)) or [""] * len(worst)
    mistakes = []
    for index, row, text in zip(worst, rows, texts, strict=True):
        true = describe(targets[index])
        predicted = describe(guesses[index])
        mistakes.append(Mistake(row, text[:MAX_TEXT], true, predicted, float(scores[index])))
    return mistakes


def write_files(
    results: FinalEvaluation, data: DataModule, tracker: Tracker, folder: Path, step: int
) -> None:
    """Writes the files of an evaluation of labelled rows, and logs them and the metrics of rows of no other one."""
    task = data.task
    record = results.record
    if task.kind == "language_modelling" or not record.results:
        return
    metrics = record.keyed_metrics("test", "out_of_fold")
    tracker.log_metrics(step, {name: value for name, value in metrics.items() if value is not None})
    if task.decided_labels and isinstance(results.thresholds, np.ndarray):
        path = folder / THRESHOLDS
        values = results.thresholds.tolist()
        write_json(path, dict(zip(task.decided_labels, values, strict=True)))
        tracker.log_artifact(path, "config/inference")
    row = "row" if hasattr(data, "location") else "id"
    score = "error" if task.kind == "regression" else "probability"
    lines = [(row, "text", "true", "predicted", score)]
    for each in record.mistakes:
        lines.append((each.row, each.text, each.true, each.predicted, f"{each.score:.6g}"))
    write_atomic(folder / MISTAKES, csv_lines(lines))
    tracker.log_artifact(folder / MISTAKES)
