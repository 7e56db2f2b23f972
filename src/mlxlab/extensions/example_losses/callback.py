"""Logs the loss of every training example: one array per batch leaves the device, a thread writes it to the disk."""

import logging
import queue
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from mlxlab.extensions.example_losses import files
from mlxlab.schema.constraints import Size
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.state import StepResult, TrainState

logger = logging.getLogger(__name__)

MAX_SECONDS = 60.0  # time to write what is queued when a run ends


class Losses(NamedTuple):
    """K values of each of B examples."""

    step: int
    time: float
    ids: np.ndarray  # (B,)
    names: list[str]  # what each of the K values is
    values: mx.array  # (K, B)


class ExampleLossLogger(Callback):
    """Logs id, loss (sum, and mean per target), KL, CE, number of targets, step and time of each training example.

    They go to `<run folder>/example_losses` as Arrow IPC streams; `example_losses` reads them and merges them into a
    Parquet file, `data.select` selects by them. Training never waits: batches that do not fit into the queue are
    dropped, and reported at the end.

    Args:
        every_steps: steps between batches that are logged, 1 logs every example; null logs none.
        queue_size: batches that may wait for the disk.
    """

    def __init__(self, every_steps: Size | None, queue_size: Size, *, folder: Path) -> None:
        self.every_steps = every_steps
        self.folder = folder / files.FOLDER
        self._queue: queue.Queue[Losses | None] = queue.Queue(queue_size)  # None ends the thread
        self._waiting = 0  # rows that were not written, or not yet
        self._error: OSError | None = None  # the first one of the disk

    def on_start(self, context: FitContext, state: TrainState) -> None:
        if self.folder.is_dir():
            files.truncate(self.folder, state.progress.step)
        if self.every_steps is not None:
            self._thread = threading.Thread(target=self._write, daemon=True)
            self._thread.start()

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        step = state.progress.step
        if self.every_steps is None or not result.trained or step % self.every_steps:
            return
        names = list(result.per_example)
        values = mx.stack([each.astype(mx.float32) for each in result.per_example.values()])
        mx.async_eval(values)  # The thread waits for it, training does not.
        ids = result.batch.example_ids
        self._waiting += len(ids)
        with suppress(queue.Full):
            self._queue.put_nowait(Losses(step, time.time(), ids, names, values))

    def on_end(self, context: FitContext, state: TrainState) -> None:
        if self.every_steps is None:
            return
        with suppress(queue.Full):
            self._queue.put(None, timeout=MAX_SECONDS)
            self._thread.join(MAX_SECONDS)
        if self._waiting:
            context.log(state, {"example_losses/dropped_rows": float(self._waiting)})
            reason = self._error or "expected a larger callbacks.example_losses.queue_size"
            logger.warning(f"{self.folder}: {self._waiting:,} rows dropped: {reason}")

    def _write(self) -> None:
        stream = files.StreamWriter(self.folder)
        while (losses := self._queue.get()) is not None:
            try:
                stream.append(to_rows(losses))
                self._waiting -= len(losses.ids)
            except OSError as error:
                if self._error is None:
                    self._error = error
                    logger.warning(f"{self.folder}: not written, training continues: {error}")
        with suppress(OSError):
            stream.close()


def to_rows(batch: Losses) -> files.Columns:
    """One row per example; rows without a target are not examples."""
    losses = dict(zip(batch.names, np.array(batch.values), strict=True))
    total = losses.pop("loss")
    targets = losses.pop("weight")
    is_real = targets > 0
    targets = targets[is_real]
    unknown = np.full(len(targets), np.nan, np.float32)
    rows = {
        "id": batch.ids[is_real].astype(np.int64),
        "step": np.full(len(targets), batch.step),
        "time": np.full(len(targets), batch.time),
        "targets": targets,
        "sum": total[is_real],
        "mean": total[is_real] / targets,
        "kl": unknown,
        "cross_entropy": unknown,
    }
    for name, values in losses.items():
        rows[name] = values[is_real] / targets
    return rows
