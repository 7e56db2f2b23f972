"""Mixes the networks of `model=tabular`, now and earlier in the training, with a linear model and boosted trees."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from mlxlab.baselines.boosting import fit_boosting, trees_of
from mlxlab.baselines.estimators import limit_scikit
from mlxlab.baselines.linear import fit_linear
from mlxlab.baselines.mixture import fit_mixture, mix
from mlxlab.baselines.out_of_fold import OutOfFold, save_out_of_fold
from mlxlab.data.batch import FOLDS, Batch
from mlxlab.errors import ConfigError
from mlxlab.models.tabular import (
    LinearReader,
    MarginReader,
    TabularHead,
    TabularNetwork,
    to_outputs,
)
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.state import StepResult, TrainState

ROWS = 4096  # read at once

Arrays = dict[str, mx.array]  # a fitted model by the names of its arrays
Predict = Callable[[np.ndarray], np.ndarray]  # features (N, R) -> outputs (N, O)
Fit = Callable[[TabularHead, np.ndarray, np.ndarray], tuple[Arrays, Predict]]


class Rows(NamedTuple):
    """The training rows."""

    cells: np.ndarray  # (N, C)
    targets: np.ndarray
    ids: np.ndarray  # (N,)
    folds: np.ndarray  # (N,)


class FitMixture(Callback):
    """Keeps the networks at some steps, and fits the mixture after the last one, on rows that each did not learn from.

    The mixture is evaluated in place of the networks, whose evaluations do not count any more. What it says of the
    training rows, each by models that did not learn from it, goes to a file of the run folder.
    """

    runs_on_all_ranks = True

    def __init__(self, *, folder: Path) -> None:
        self.folder = folder

    def needs_sync(self, state: TrainState) -> bool:
        return _mixed_head(state) is not None

    def on_start(self, context: FitContext, state: TrainState) -> None:
        """Raises ConfigError for a run that is prolonged: its snapshots are fractions of the first length."""
        head = _mixed_head(state)
        if head is None or not _is_fitted(head):
            return
        if state.total_steps is None or state.progress.step < state.total_steps:
            got = f"the mixture was fitted after step {state.progress.step}"
            raise ConfigError(f"model=tabular: {got}; train a new run to train longer")

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        head = _mixed_head(state)
        if head is None:
            return
        _keep_snapshots(state, head)
        if context.control.stop_reason == "done" and not _is_fitted(head):
            rows = _read(context.training_rows)
            with state.eval_weights():
                outputs = _fit(head, rows)
            if context.group.rank == 0:
                said = OutOfFold(rows.ids, rows.targets, outputs.astype(np.float32))
                save_out_of_fold(self.folder, said)
            state.history.discard_best()
            context.control.evaluation_requested = True


def _mixed_head(state: TrainState) -> TabularHead | None:
    head = state.model.get("head")
    if isinstance(head, TabularHead) and head.folds > 1:
        return head
    return None


def _keep_snapshots(state: TrainState, head: TabularHead) -> None:
    for fraction, snapshot in zip(head.fractions, head.snapshots, strict=True):
        if state.progress.step == max(1, round(fraction * (state.total_steps or 0))):
            with state.eval_weights():
                snapshot.update(head.network.parameters())


def _is_fitted(head: TabularHead) -> bool:
    return bool(np.count_nonzero(np.array(head.shares)) > 1)


def _read(batches: Iterable[Batch]) -> Rows:
    columns = [
        (batch.tokens, batch.targets, batch.example_ids, batch.aux[FOLDS]) for batch in batches
    ]
    return Rows(*(np.concatenate(arrays) for arrays in zip(*columns, strict=True)))


def _fit(head: TabularHead, rows: Rows) -> np.ndarray:
    """Fits the linear model, the trees and the shares, and puts them into the head.

    Returns what the mixture says of the rows (N, O), each by models that did not learn from it.
    """
    features = np.array(head.features(mx.array(rows.cells)))
    outputs: list[np.ndarray] = []
    for reader in head.readers:
        if isinstance(reader, TabularNetwork):
            outputs.append(_held_out_outputs(head, reader, rows))
        elif isinstance(reader, MarginReader):
            # The cells of training rows come from models that did not learn from them.
            outputs.append(np.array(to_outputs(reader(mx.array(rows.cells)), head.kind)))
        else:
            fit = _fit_linear if isinstance(reader, LinearReader) else _fit_trees
            outputs.append(_cross_fitted(fit, head, features, rows))
            arrays, _ = fit(head, features, rows.targets)
            reader.update(arrays)
    mixture = fit_mixture(outputs, rows.targets, head.kind)
    head.update({"shares": _float(mixture.shares), "sharpness": _float(mixture.sharpness)})
    return mix(mixture, outputs, head.kind)


def _cross_fitted(fit: Fit, head: TabularHead, features: np.ndarray, rows: Rows) -> np.ndarray:
    """(N, O), of a model that did not learn from the fold of each row."""
    outputs = np.zeros((len(features), head.num_outputs))
    for fold in range(head.folds):
        is_out = rows.folds == fold
        _, predict = fit(head, features[~is_out], rows.targets[~is_out])
        outputs[is_out] = predict(features[is_out])
    return outputs


def _fit_linear(
    head: TabularHead, features: np.ndarray, targets: np.ndarray
) -> tuple[Arrays, Predict]:
    model = fit_linear(features, targets, head.kind, head.num_outputs)

    def predict(features: np.ndarray) -> np.ndarray:
        return np.array(to_outputs(_float(model(features)), head.kind))

    return {name: _float(each) for name, each in model._asdict().items()}, predict


def _fit_trees(
    head: TabularHead, features: np.ndarray, targets: np.ndarray
) -> tuple[Arrays, Predict]:
    model = fit_boosting(features, targets, head.kind, head.num_outputs)

    def predict(features: np.ndarray) -> np.ndarray:
        with limit_scikit("gradient_boosting"):
            return model(features).reshape(len(features), -1)

    return {name: _float(each) for name, each in trees_of(model)._asdict().items()}, predict


def _held_out_outputs(head: TabularHead, network: TabularNetwork, rows: Rows) -> np.ndarray:
    """(N, O) of the network that did not learn from each row."""
    outputs: list[np.ndarray] = []
    for start in range(0, len(rows.cells), ROWS):
        part = slice(start, start + ROWS)
        by_fold = np.array(head.fold_outputs(mx.array(rows.cells[part]), network))  # (F, B, O)
        outputs.append(by_fold[rows.folds[part], np.arange(by_fold.shape[1])])
    return np.concatenate(outputs)


def _float(values: np.ndarray) -> mx.array:
    return mx.array(values.astype(np.float32))
