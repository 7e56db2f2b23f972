"""Mixes the networks of `model=tabular`, now and earlier in the training, with a linear model and boosted trees."""

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from mlxlab.data.batch import FOLDS, Batch, TaskKind
from mlxlab.errors import ConfigError
from mlxlab.models.baselines.estimators import limit_scikit
from mlxlab.models.baselines.mixture import OutOfFold, fit_mixture, mix, save_out_of_fold
from mlxlab.models.baselines.scikit_learn import fit_boosting, fit_linear, trees_of
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


class Fitted(NamedTuple):
    """A model of scikit-learn.

    Args:
        arrays: those of its reader, by name.
        predict: features (N, R) -> outputs (N, O).
    """

    arrays: Mapping[str, np.ndarray]
    predict: Callable[[np.ndarray], np.ndarray]


Fit = Callable[[np.ndarray, np.ndarray, TaskKind, int], Fitted]


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

    def on_start(self, context: FitContext, state: TrainState) -> None:
        """Raises ConfigError for a run that is prolonged: its snapshots are fractions of the first length."""
        head = mixed_head(state)
        if head is None or not head.is_mixed:
            return
        if state.total_steps is None or state.progress.step < state.total_steps:
            got = f"the mixture was fitted after step {state.progress.step}"
            raise ConfigError(f"model=tabular: {got}; train a new run to train longer")

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        head = mixed_head(state)
        if head is None:
            return
        for fraction, snapshot in zip(head.fractions, head.snapshots, strict=True):
            if state.progress.step == max(1, round(fraction * (state.total_steps or 0))):
                with state.eval_weights():
                    snapshot.update(head.network.parameters())
        if context.control.stop_reason == "done" and not head.is_mixed:
            rows = _read(context.training_rows)
            with state.eval_weights(), limit_scikit("mixture"):
                outputs = _fit(head, rows)
            if context.group.rank == 0:
                said = OutOfFold(rows.ids, rows.targets, outputs.astype(np.float32))
                save_out_of_fold(self.folder, said)
            state.history.discard_best()
            context.control.evaluation_requested = True


def mixed_head(state: TrainState) -> TabularHead | None:
    """The head of a model whose mixture is fitted in the last step; None of other models."""
    head = state.model.get("head")
    if isinstance(head, TabularHead) and head.folds > 1:
        return head
    return None


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
            fitted, held_out = _cross_fit(fit, head, features, rows)
            outputs.append(held_out)
            reader.update({name: _float(each) for name, each in fitted.arrays.items()})
    mixture = fit_mixture(outputs, rows.targets, head.kind)
    head.update({"shares": _float(mixture.shares), "sharpness": _float(mixture.sharpness)})
    return mix(mixture, outputs, head.kind)


def _cross_fit(
    fit: Fit, head: TabularHead, features: np.ndarray, rows: Rows
) -> tuple[Fitted, np.ndarray]:
    """The model of all rows, and (N, O) of models that did not learn from the fold of each row."""
    from threadpoolctl import threadpool_limits

    is_known = [np.full(len(features), True)]
    is_known += [rows.folds != fold for fold in range(head.folds)]

    def fit_part(part: np.ndarray) -> Fitted:
        return fit(features[part], rows.targets[part], head.kind, head.num_outputs)

    # OpenMP has a limit for each thread that calls it.
    with ThreadPoolExecutor(os.cpu_count(), initializer=threadpool_limits, initargs=(1,)) as pool:
        of_all, *of_folds = pool.map(fit_part, is_known)
    held_out = np.zeros((len(features), head.num_outputs))
    for fold, fitted in enumerate(of_folds):
        is_out = rows.folds == fold
        held_out[is_out] = fitted.predict(features[is_out])
    return of_all, held_out


def _fit_linear(features: np.ndarray, targets: np.ndarray, kind: TaskKind, outputs: int) -> Fitted:
    from scipy.special import expit, softmax

    model = fit_linear(features, targets, kind, outputs)

    def predict(features: np.ndarray) -> np.ndarray:
        logits = model(features)
        if kind == "classification":
            return softmax(logits, axis=1)
        if kind == "multi_label":
            return expit(logits)
        return logits

    return Fitted(model._asdict(), predict)


def _fit_trees(features: np.ndarray, targets: np.ndarray, kind: TaskKind, outputs: int) -> Fitted:
    model = fit_boosting(features, targets, kind, outputs)

    def predict(features: np.ndarray) -> np.ndarray:
        return model(features).reshape(len(features), -1)

    return Fitted(trees_of(model)._asdict(), predict)


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
