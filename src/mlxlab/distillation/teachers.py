"""The teachers of a run: frozen models, queried for every batch or cached, or a file of predictions.

A callback compares them with the student at the end.
"""

import hashlib
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import mlx.core as mx
import numpy as np

from mlxlab.data.batch import Batch, Task, TaskKind
from mlxlab.data.dataset import DataModule
from mlxlab.distillation.teacher_cache import CLASSES, VALUES, TeacherCache
from mlxlab.errors import DataError, NotAllowedError
from mlxlab.models.baselines.mixture import OutOfFold
from mlxlab.models.ensemble import Ensemble, Router, weighted_mean
from mlxlab.models.model import count_parameters
from mlxlab.models.tabular import to_logits
from mlxlab.schema.metric_names import AGREEMENT
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.device_batch import DeviceBatch, to_device
from mlxlab.training.evaluate import evaluate
from mlxlab.training.state import TrainState

ROW = "row"  # the column of the numbers of the rows, from 1
VALUE = "value"
PROBABILITY = "probability_"
MAX_ERROR = 1e-3  # error in the sum of the probabilities of a row
MAX_DEVIATIONS = 1e6  # standard deviations from the mean of the training rows


class SoftTargets(NamedTuple):
    """Logits (..., C), (B, L) or numbers (B, 1) of the teachers.

    With `classes` (..., k), log-probabilities of these and of the tail.
    """

    values: mx.array  # (..., C), or (..., k + 1): the last is all other classes together
    classes: mx.array | None = None


class HeldOutTargets:
    """What a mixture, or a file, said of the training rows, of a mixture by models that did not learn from them."""

    def __init__(self, said: OutOfFold, kind: TaskKind) -> None:
        self._rows = {number: row for row, number in enumerate(said.ids.tolist())}
        self._targets = said.targets
        self._logits = np.array(to_logits(mx.array(said.outputs), kind))

    def digest(self) -> str:
        """SHA-256 of what was said."""
        return hashlib.sha256(self._logits.tobytes()).hexdigest()

    def soft_targets(self, batch: Batch) -> dict[str, np.ndarray]:
        """Soft targets of a batch; empty unless all are training rows of the mixture, with the same targets."""
        rows = np.array([self._rows.get(number, -1) for number in batch.example_ids.tolist()])
        is_real = batch.example_ids >= 0  # Others only fill up the batch.
        targets = batch.targets[is_real]
        if (rows[is_real] < 0).any() or not np.array_equal(self._targets[rows[is_real]], targets):
            return {}
        return {VALUES: self._logits[rows]}


@dataclass
class Teachers:
    """The teachers of a run; false without any."""

    ensemble: Ensemble = field(default_factory=lambda: Ensemble([]))  # gives the soft targets
    # Earlier students that the student completes.
    residual_base: Ensemble = field(default_factory=lambda: Ensemble([]))
    # Stores the soft targets of the ensemble; None queries it for every batch.
    cache: TeacherCache | None = None
    held_out: HeldOutTargets | None = None  # where the single teacher is a mixture, or a file
    # name of a model -> digest of its weights, for the manifest
    digests: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.ensemble) or self.held_out is not None

    def cached(self, batch: Batch, router: Router | None) -> dict[str, np.ndarray]:
        """Soft targets of a batch that need no query, or from the cache, which queries the ensemble on a miss.

        They are empty without a cache.
        """
        if self.held_out is not None:
            targets = self.held_out.soft_targets(batch)
            if targets:
                return targets
        if not self.ensemble:
            raise DataError("trainer.teachers: expected a prediction of each training row")
        if self.cache is None:
            return {}
        return self.cache.soft_targets(batch, lambda: self._logits(to_device(batch), router))

    def soft_targets(self, batch: DeviceBatch, router: Router | None) -> SoftTargets:
        """Soft targets from the annotations of a batch, else from the ensemble."""
        if VALUES in batch.aux:
            return SoftTargets(batch.aux[VALUES].astype(mx.float32), batch.aux.get(CLASSES))
        return SoftTargets(mx.stop_gradient(self._logits(batch, router)))

    def add_residual_base(self, logits: mx.array, batch: DeviceBatch) -> mx.array:
        """The logits (..., C) of the residual base of n members with the student: (n * base + student) / (n + 1)."""
        if not self.residual_base:
            return logits
        base = mx.stop_gradient(self.residual_base(batch.tokens, batch.segment_ids))
        return weighted_mean(
            [base, logits.astype(mx.float32)], [float(len(self.residual_base)), 1.0]
        )

    def _logits(self, batch: DeviceBatch, router: Router | None) -> mx.array:
        logits = self.ensemble.member_logits(batch.tokens, batch.segment_ids)
        if router is None:
            return self.ensemble.combine(logits)
        return self.ensemble.combine(logits, router(logits=logits, targets=batch.targets))


@dataclass
class DistillationReport(Callback):
    """Evaluates student and teachers on the same batches, at the end.

    The metrics go to `history.reference`. Runs in all processes, so that none waits for another. None as `max_batches`
    takes all validation batches.
    """

    teachers: Teachers
    valid: Iterable[Batch]
    task: Task
    max_batches: int | None
    runs_on_all_ranks = True

    def on_end(self, context: FitContext, state: TrainState) -> None:
        if self.teachers.cache is not None:
            print(self.teachers.cache.describe(), file=sys.stderr)
        if self.teachers.ensemble and context.control.stop_reason == "done":
            state.history.reference = self._compare(context, state)

    def _compare(self, context: FitContext, state: TrainState) -> dict[str, dict[str, float]]:
        """Metrics, parameters and milliseconds per batch of student and teacher; empty if a signal interrupts it.

        Of a classification also how often both predict the same class.
        """
        batches = list(islice(self.valid, self.max_batches))
        metrics: dict[str, dict[str, float]] = {}
        predicted: list[np.ndarray] = []
        ensemble = self.teachers.ensemble
        models = [("student", state.model, state.whole_model), ("teacher", ensemble, ensemble)]
        with context.group.computing(), state.eval_weights():
            for name, model, whole in models:
                evaluate(model, batches, self.task, limit=1)  # compiles
                start = time.perf_counter()
                evaluation = evaluate(model, batches, self.task, should_stop=context.should_stop)
                if evaluation is None:
                    return {}
                milliseconds = 1000 * (time.perf_counter() - start) / max(len(batches), 1)
                metrics[name] = {
                    **evaluation.metrics,
                    "parameters": float(count_parameters(whole)),
                    "ms per batch": milliseconds,
                }
                if self.task.kind == "classification":
                    predicted.append(evaluation.outputs.argmax(axis=1))
        if predicted:
            metrics["student"][AGREEMENT] = float(np.mean(predicted[0] == predicted[1]))
        return metrics


if TYPE_CHECKING:
    from mlxlab.data.labelled.rows import Rows


def load_predictions(path: Path, data: DataModule, cache: Path) -> OutOfFold:
    """What the file says of the training rows.

    Its columns are `probability_<label>` of each class or label, or `value` of a regression; further ones are not
    read. It has a row for each row of `data.source`, in the same order, or in a column `row` their numbers from 1.

    Raises:
        NotAllowedError: the data are no rows, or some of them are malformed and so have no number.
        InputNotFoundError: no such file.
        DataError: a column or the row of a training row is missing, or a cell is no probability.
    """
    import pandas as pd

    from mlxlab.data.labelled.dataset import LabelledExamples
    from mlxlab.data.labelled.rows import Rows, open_rows
    from mlxlab.data.sources.open import Reading, open_source

    if not isinstance(data, LabelledExamples) or data.rows.parts[0].num_malformed:
        expected = "expected labelled rows as data, none of them malformed"
        raise NotAllowedError(f"trainer.teachers: {path}: {expected}")
    names = [VALUE]
    if data.task.kind != "regression":
        names = [f"{PROBABILITY}{label}" for label in data.task.labels]
    has_numbers = ROW in open_source(str(path), Reading()).columns()
    columns = [*names, ROW] if has_numbers else names
    predicted = Rows([open_rows(str(path), Reading(), cache, columns=columns)])
    outputs = np.stack([_numbers(predicted, name) for name in columns], axis=1)
    rows = np.arange(len(predicted))
    if has_numbers:
        rows = outputs[:, -1] - 1
        outputs = outputs[:, :-1]
        _require((rows >= 0) & (rows % 1 == 0), predicted, "the number of a row, from 1")
    elif len(rows) != data.rows.starts[1]:
        expected = f"expected the {data.rows.starts[1]:,} rows of {data.rows.name}"
        raise DataError(f"{path}: {expected}, got {len(rows):,}")

    index = pd.Index(rows.astype(np.int64))
    _require(~index.duplicated(), predicted, "each number of a row once")
    places = index.get_indexer(data.split.train)  # -1 where there is none
    if (places < 0).any():
        number = int(data.split.train[places.argmin()]) + 1
        raise DataError(f"{path}: no prediction of row {number}, which is trained on")
    ids = np.concatenate([batch.example_ids for batch in data.training_rows])
    scaled = _scaled(outputs, data.task, predicted)
    said = scaled[places].astype(np.float32)
    return OutOfFold(ids, data.training_targets, said)


def _numbers(rows: "Rows", name: str) -> np.ndarray:
    """(N,) the cells of a column; DataError with the place of one that is missing or no number."""
    from mlxlab.data.labelled.types import ColumnType, read_column

    column = read_column(name, rows.column(name), ColumnType("number"), rows.location)
    _require(column.codes >= 0, rows, f"a number in column {name!r}, got none")
    return column.amounts()


def _scaled(outputs: np.ndarray, task: Task, rows: "Rows") -> np.ndarray:
    """Probabilities as they are, numbers as the targets are; DataError with the place of one that cannot be."""
    if task.kind == "regression":
        scaled = (outputs - task.target_mean) / task.target_deviation
        is_near = np.abs(scaled[:, 0]) <= MAX_DEVIATIONS
        _require(is_near, rows, "a number near those of the training rows")
        return scaled
    is_valid = (outputs.min(axis=1) >= 0) & (outputs.max(axis=1) <= 1)
    _require(is_valid, rows, "probabilities from 0 to 1")
    if task.kind == "classification":
        is_whole = np.abs(outputs.sum(axis=1) - 1) <= MAX_ERROR
        _require(is_whole, rows, "probabilities that sum to 1")
    return outputs


def _require(is_valid: np.ndarray, rows: "Rows", expected: str) -> None:
    """Raises DataError with the place of the first row for which this is False."""
    if not is_valid.all():
        raise DataError(f"{rows.location(int(np.argmin(is_valid)))}: expected {expected}")
