"""Logs the loss of every training example: one array per batch leaves the device, a thread writes it to the disk."""

import logging
import queue
import threading
import time
from contextlib import suppress
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlxlab.constraints import Size
from mlxlab.data import example_losses
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.state import StepResult, TrainState

logger = logging.getLogger(__name__)

FIXED = ("loss", "weight")  # of `StepResult.per_example`; the others are terms of the loss
MAX_SECONDS = 60.0  # to write what is queued when a run ends

Losses = tuple[
    int, float, np.ndarray, tuple[str, ...], mx.array
]  # of one batch: the arguments of `to_rows`


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
        self.every_steps, self.folder = every_steps, folder / example_losses.FOLDER
        self._queue: queue.Queue[Losses | None] = queue.Queue(queue_size)  # None ends the thread
        self._seen = self._written = 0  # rows
        self._error = ""  # the first one of the disk

    def on_start(self, context: FitContext, state: TrainState) -> None:
        if self.folder.is_dir():
            example_losses.truncate(self.folder, state.progress.step)
        if self.every_steps is not None:
            stream = example_losses.StreamWriter(self.folder)
            self._thread = threading.Thread(
                target=self._write, args=(stream,), name="example losses", daemon=True
            )
            self._thread.start()

    def needs_sync(self, state: TrainState) -> bool:
        return False

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        step, ids = state.progress.step, result.batch.example_ids
        if self.every_steps is None or not result.trained or step % self.every_steps:
            return
        names = (*FIXED, *sorted(result.per_example.keys() - set(FIXED)))
        values = mx.stack([result.per_example[name].astype(mx.float32) for name in names])  # (K, B)
        mx.async_eval(values)  # the thread waits for it, training does not
        self._seen += len(ids)
        with suppress(queue.Full):
            self._queue.put_nowait((step, time.time(), ids, names, values))

    def on_end(self, context: FitContext, state: TrainState) -> None:
        if self.every_steps is None:
            return
        with suppress(queue.Full):
            self._queue.put(None, timeout=MAX_SECONDS)
            self._thread.join(MAX_SECONDS)
        if dropped := self._seen - self._written:
            context.log(state, {"example_losses/dropped_rows": float(dropped)})
            reason = (
                self._error
                or "the disk was slower than training; raise callbacks.example_losses.queue_size"
            )
            logger.warning(f"{self.folder}: {dropped:,} of {self._seen:,} rows dropped: {reason}")

    def _write(self, stream: example_losses.StreamWriter) -> None:
        while (losses := self._queue.get()) is not None:
            try:
                if len((rows := to_rows(*losses))["id"]):
                    stream.append(rows)
                self._written += len(losses[2])
            except OSError as error:
                if not self._error:
                    self._error = f"{self.folder}: {error.strerror or error}"
                    logger.warning(
                        f"per-example losses not written: {self._error}; training continues"
                    )
        with suppress(OSError):
            stream.close()


def to_rows(
    step: int, now: float, ids: np.ndarray, names: tuple[str, ...], values: mx.array
) -> example_losses.Columns:
    """One row per example of a batch with `values` (K, B) by name; rows without a target are not examples."""
    losses = dict(zip(names, np.array(values), strict=True))
    total, targets = losses.pop("loss"), losses.pop("weight")
    real = targets > 0
    count, total, targets = int(real.sum()), total[real], targets[real]
    rows = {"id": ids[real].astype(np.int64), "step": np.full(count, step, np.int64)}
    rows |= {"time": np.full(count, now), "targets": targets, "sum": total, "mean": total / targets}
    rows |= {
        name: np.full(count, np.nan, np.float32) for name in ("kl", "cross_entropy")
    }  # unless it has them
    return rows | {name: loss[real] / targets for name, loss in losses.items()}
