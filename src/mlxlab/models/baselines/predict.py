"""Baselines without a neural network: what a model has to beat on the same rows."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from mlxlab.data.batch import Task
from mlxlab.data.dataset import LabelledRows, Table
from mlxlab.models.baselines.columns import fit_columns
from mlxlab.models.baselines.estimators import FittedModels, limit_scikit, to_data_units
from mlxlab.models.baselines.texts import fit_texts

BLOCK = 2**14  # rows that are predicted at a time


class Baseline(NamedTuple):
    """Predictions of a method without a neural network.

    Probabilities (N, C) of a classification or (N, L) of labels, values (N,) of a regression as they stand in the data.
    """

    name: str
    valid: np.ndarray  # ordered like the validation batches
    test: np.ndarray  # ordered like the test batches


def predict_baselines(data: object) -> Sequence[Baseline]:
    """Predictions for the validation and test rows of a data set; empty where it has no baselines."""
    if not isinstance(data, LabelledRows):
        return []
    num_train, num_valid, num_test = data.split_sizes

    def read(rows: np.ndarray) -> Table:
        return data.cells(num_train + rows)

    return predict_rows(data, read, num_valid, num_test)


def predict_rows(
    data: LabelledRows, read: Callable[[np.ndarray], Table], num_valid: int, num_test: int = 0
) -> list[Baseline]:
    """Fits the baselines on the training rows and predicts others, which are read by number: validation rows first."""
    fitted = fit_baselines(data)
    parts: dict[str, list[np.ndarray]] = {}
    for start in range(0, num_valid + num_test, BLOCK):
        table = read(np.arange(start, min(start + BLOCK, num_valid + num_test)))
        for group in fitted:
            with limit_scikit("predictions"):
                for name, values in group.predict(table).items():
                    parts.setdefault(name, []).append(values)
    baselines = []
    for name, predictions in parts.items():
        valid, test = np.split(np.concatenate(predictions), [num_valid])
        baselines.append(Baseline(name, valid, test))
    return baselines


def fit_baselines(data: LabelledRows) -> list[FittedModels]:
    """The constant, then what reads the columns or the texts of rows."""
    inputs = data.baseline_inputs
    if inputs is None:
        return []
    fitted = [fit_constant(data.training_targets, data.task)]
    for name, rule in inputs.rules.items():
        fitted.append(FittedModels(rule, {name: np.asarray}))
    if inputs.columns is not None:
        fitted.append(fit_columns(data, inputs.columns))
    for name, texts in inputs.texts.items():
        fitted.append(fit_texts(data, texts, name, inputs.plain))
    return fitted


def fit_constant(train_targets: np.ndarray, task: Task) -> FittedModels:
    """Predicts the same for every row: frequencies of the classes or labels, or the mean (`mean`)."""
    value = train_targets.mean(axis=0, dtype=np.float64)
    if task.kind == "classification":
        value = np.bincount(train_targets, minlength=task.num_classes) / len(train_targets)
    value = to_data_units(value, task)
    name = "majority"
    if task.kind == "regression":
        name = "mean"

    def repeat(table: Table) -> np.ndarray:
        count = len(next(iter(table.values())))
        return np.broadcast_to(value, (count, *value.shape))

    return FittedModels(repeat, {name: np.asarray})
