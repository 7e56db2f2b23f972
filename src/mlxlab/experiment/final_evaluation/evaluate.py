"""The evaluation at the end of a run of a labelled task, of the best weights: validation rows, and once the test rows.

The metrics get intervals, and the baselines are judged on the same rows.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import mlx.nn as nn
import numpy as np

from mlxlab.baselines.estimators import to_data_units
from mlxlab.baselines.out_of_fold import load_out_of_fold
from mlxlab.checkpoint.manifest import CorruptCheckpointError
from mlxlab.checkpoint.names import FOLDER, folder_name
from mlxlab.checkpoint.resume import check_arrays
from mlxlab.checkpoint.store import Checkpoint, load_checkpoint
from mlxlab.data.batch import Task
from mlxlab.data.dataset import DataModule, LabelledRows
from mlxlab.errors import CheckpointUnavailableError, DataError, NotAllowedError
from mlxlab.experiment.build import saved_architecture
from mlxlab.experiment.final_evaluation.text_baselines import (
    MAX_BATCHES,
    NO_BASELINES,
    TextBaselines,
    text_baselines,
)
from mlxlab.metric_names import lower_is_better
from mlxlab.models.build import Architecture
from mlxlab.models.layers import named_parameters
from mlxlab.record.run_record import Split
from mlxlab.stats.bootstrap import (
    Statistic,
    gain_interval,
    interval,
    proportion_interval,
    resample,
)
from mlxlab.tracking.tracker import Tracker
from mlxlab.training.evaluate import Evaluation, evaluate
from mlxlab.training.metrics.labelled import (
    Thresholds,
    labelled_metrics,
    main_metric,
    predicted_classes,
)
from mlxlab.training.metrics.ranking import best_threshold
from mlxlab.training.metrics.resampled import resampled_metrics
from mlxlab.training.state import TrainState

MODEL = "this model"
OUT_OF_FOLD: Split = "out_of_fold"
UNUSABLE = (CheckpointUnavailableError, DataError, NotAllowedError)  # that of the best evaluation

logger = logging.getLogger(__name__)
Interval = tuple[float, float]


@dataclass(frozen=True)
class SplitResults:
    """Model and baselines on the examples of one split; values and intervals by the name of the metric."""

    split: Split
    evaluation: Evaluation
    metrics: dict[str, float]
    intervals: dict[str, Interval]
    baselines: dict[str, dict[str, float]]
    gains: dict[
        str, Interval
    ]  # by baseline: of how much better the model's main metric is; negative is worse


@dataclass(frozen=True)
class FinalEvaluation:
    """What was measured at the end of a run; without splits if its task has no labels, or no evaluation was finite."""

    task: Task
    main_metric: str = ""  # in which it is compared with baselines; "" of a language model
    step: int = 0  # of the weights
    splits: tuple[SplitResults, ...] = ()
    # Each training row by models that did not learn from it, where a mixture was fitted on them.
    out_of_fold: SplitResults | None = None
    thresholds: Thresholds = 0.5  # chosen on these, else on the validation examples
    text_baselines: TextBaselines = NO_BASELINES  # of a language model

    @property
    def all_splits(self) -> list[SplitResults]:
        """The splits, and the training rows out of fold."""
        return [*self.splits, *filter(None, [self.out_of_fold])]


def evaluate_at_end(
    state: TrainState,
    data: DataModule,
    tracker: Tracker,
    folder: Path,
    objective: str,
    max_batches: int | None,
    should_stop: Callable[[], bool] = lambda: False,
) -> FinalEvaluation | None:
    """Evaluates the best weights of a run that ended, and the baselines of its data; None once `should_stop` is true.

    Args:
        folder: the run folder, with its checkpoints.
        objective: the metric that chose the best evaluation.
        max_batches: validation batches at most, as in training; all test batches are evaluated.
    """
    task = data.task
    if state.history.best is None:
        return FinalEvaluation(task)
    if task.kind == "language_modelling":
        limit = min(max_batches or MAX_BATCHES, MAX_BATCHES)
        return FinalEvaluation(task, text_baselines=text_baselines(state, data.valid, task, limit))
    with best_weights(state, folder) as (model, step):
        valid = evaluate(model, data.valid, task, limit=max_batches, should_stop=should_stop)
        has_test = next(iter(data.test), None) is not None
        test = evaluate(model, data.test, task, should_stop=should_stop) if has_test else None
    if valid is None or (has_test and test is None):
        return None
    from mlxlab.baselines.predict import predict_baselines

    baselines = predict_baselines(data)
    predictions = {MODEL: valid.outputs} | {
        each.name: each.valid[valid.positions] for each in baselines
    }
    main = main_metric(task, objective)
    thresholds = {
        name: choose_thresholds(task, main, outputs, valid.targets)
        for name, outputs in predictions.items()
    }
    training = _out_of_fold(data, folder)
    if training is not None:
        thresholds[MODEL] = choose_thresholds(task, main, training.outputs, training.targets)
    splits = [judge(task, main, "valid", valid, predictions, dict.fromkeys(predictions, 0.5))]
    if test is not None:
        predictions = {each.name: each.test[test.positions] for each in baselines if len(each.test)}
        predictions[MODEL] = test.outputs
        splits.append(judge(task, main, "test", test, predictions, thresholds))
    out_of_fold = None
    if training is not None:
        outputs = {MODEL: training.outputs}
        out_of_fold = judge(task, main, OUT_OF_FOLD, training, outputs, thresholds)
        del out_of_fold.metrics["loss"]  # It is not known.
    for results in filter(None, [*splits[1:], out_of_fold]):
        metrics = {f"{results.split}/{name}": value for name, value in results.metrics.items()}
        tracker.log_metrics(state.progress.step, metrics)
    return FinalEvaluation(task, main, step, tuple(splits), out_of_fold, thresholds[MODEL])


def _out_of_fold(data: DataModule, folder: Path) -> Evaluation | None:
    """What a mixture says of the training rows; None where none was fitted."""
    if not isinstance(data, LabelledRows):
        return None
    task = data.task
    rows = None
    try:
        rows = load_out_of_fold(folder, task.num_classes, len(data.training_targets))
    except DataError as error:
        logger.warning(str(error))
    if rows is None:
        return None
    outputs, targets = rows.outputs, rows.targets
    if task.kind == "regression":
        outputs = to_data_units(outputs[:, 0], task)
        targets = to_data_units(targets, task)
    metrics = {"loss": float("nan")}
    return Evaluation(metrics, np.arange(len(rows.ids)), rows.ids, targets, outputs)


@contextmanager
def best_weights(state: TrainState, folder: Path) -> Iterator[tuple[nn.Module, int]]:
    """The model with the weights of the best checkpoint, and their step; those of the last step if it is unusable."""
    best, model = state.history.best_step, state.model
    path = folder / FOLDER / folder_name(best)
    if best != state.progress.step:
        try:
            checkpoint = load_checkpoint(path)
            model = _model_of(state, checkpoint)
            before = model.parameters()
            weights = state.sharding.split(checkpoint.weights)
            check_arrays(weights, named_parameters(model), "model")
            model.load_weights(list(weights.items()))
        except (OSError, CorruptCheckpointError, *UNUSABLE) as error:
            logger.warning(
                f"{path}: {error}; the final evaluation is of the last step, {state.progress.step}"
            )
        else:
            try:
                with state.sharding.gathered(model):
                    yield model, best
            finally:
                model.update(before)
            return
    with state.eval_weights() as model:
        yield model, state.progress.step


def _model_of(state: TrainState, checkpoint: Checkpoint) -> nn.Module:
    """The model in training, or one of another architecture, which is checked before it is built."""
    stored = Architecture(checkpoint.state["architecture"], checkpoint.state["vocab_size"])
    if stored == state.architecture:
        return state.model
    return state.new_model(saved_architecture(checkpoint))


def choose_thresholds(
    task: Task, main: str, outputs: np.ndarray, targets: np.ndarray
) -> Thresholds:
    """The thresholds with the greatest F1 on these examples: of labels, and of two classes compared by F1."""
    columns: Iterable[tuple[np.ndarray, np.ndarray]]
    if task.kind == "multi_label":
        columns = zip(outputs.T, targets.T > 0, strict=True)
    elif main == "f1":
        columns = [(outputs[:, task.positive_class], targets == task.positive_class)]
    else:
        return 0.5
    return np.array([best_threshold(*column) for column in columns], np.float32)


def judge(
    task: Task,
    main: str,
    split: Split,
    evaluation: Evaluation,
    predictions: Mapping[str, np.ndarray],
    thresholds: Mapping[str, Thresholds],
) -> SplitResults:
    """Metrics and intervals of the predictions of the model and of baselines, by name, on the same examples.

    Args:
        main: the metric of the gains.
    """
    targets = evaluation.targets
    metrics: dict[str, dict[str, float]] = {}
    statistics: dict[tuple[str, str], Statistic] = {}
    answers: dict[str, np.ndarray] = {}
    for name, outputs in predictions.items():
        metrics[name] = labelled_metrics(task, outputs, targets, thresholds[name])
        answers[name] = _answers(task, outputs, targets, thresholds[name])
        resampled = resampled_metrics(task, outputs, targets, thresholds[name])
        statistics |= {
            (name, metric): resampled[metric] for metric in (resampled if name == MODEL else [main])
        }
    values = resample(statistics, len(targets))
    sign = -1 if lower_is_better(main) else 1
    baselines = [name for name in predictions if name != MODEL]
    intervals = {
        metric: interval(array) for (name, metric), array in values.items() if name == MODEL
    }
    if task.kind == "classification" and (accuracy := metrics[MODEL]["accuracy"]) in (0.0, 1.0):
        intervals["accuracy"] = proportion_interval(
            accuracy, len(targets)
        )  # all resamples are equal
    gains = {}
    for name in baselines:
        different = (answers[MODEL] != answers[name]).reshape(len(targets), -1).any(axis=1).sum()
        gain, is_accuracy = sign * (values[MODEL, main] - values[name, main]), main == "accuracy"
        gains[name] = gain_interval(gain, int(different), len(targets), is_proportion=is_accuracy)
    losses = {"loss": evaluation.metrics["loss"]}
    baseline_metrics = {name: metrics[name] for name in baselines}
    return SplitResults(
        split, evaluation, losses | metrics[MODEL], intervals, baseline_metrics, gains
    )


def _answers(
    task: Task, outputs: np.ndarray, targets: np.ndarray, thresholds: Thresholds
) -> np.ndarray:
    """Whether the class of each example is right (N,); outputs where there are no classes."""
    if task.kind == "classification":
        return predicted_classes(task, outputs, thresholds) == targets
    return outputs
