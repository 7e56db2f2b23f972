"""Logs the loss of every training example: one array per batch leaves the device, a thread writes it to the disk."""

import errno
import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from mlxlab.constraints import Size
from mlxlab.data import example_losses
from mlxlab.training.context import FitContext
from mlxlab.training.state import StepResult, TrainState

logger = logging.getLogger(__name__)

FIXED = ("loss", "weight")  # of `StepResult.per_example`; the others are terms of the loss
TICK = 0.2  # seconds between two checks whether the run has ended
MAX_SECONDS = 60.0  # to write what is queued when a run ends


class ExampleLossLogger:
    """Logs id, loss (sum, and mean per target), KL, CE, number of targets, step and time of each training example.

    They go to `<run folder>/example_losses` as Parquet; `example_losses` reads them, `data.select` selects by
    them. Training never waits: batches that do not fit into the queue are dropped, and reported at the end.

    Args:
        every_steps: steps between batches that are logged, 1 logs every example; null logs none.
        queue_size: batches that may wait for the disk.
        rows_per_file: rows of one Parquet file.
    """

    runs_on_all_ranks = False

    def __init__(self, every_steps: Size | None, queue_size: Size, rows_per_file: Size, *, folder: Path) -> None:
        self.every_steps, self.queue_size, self.rows_per_file = every_steps, queue_size, rows_per_file
        self.folder = folder / example_losses.FOLDER
        self._writer: _Writer | None = None

    def on_start(self, context: FitContext, state: TrainState) -> None:
        if self.folder.is_dir():
            example_losses.settle(self.folder, state.progress.step)
        if self.every_steps is not None:
            self._writer = _Writer(self.folder, self.queue_size, self.rows_per_file)

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        step = state.progress.step
        if self._writer is None or not result.trained or step % (self.every_steps or 1):
            return
        names = (*FIXED, *sorted(result.per_example.keys() - set(FIXED)))
        values = mx.stack([result.per_example[name].astype(mx.float32) for name in names])  # (K, B)
        mx.async_eval(values)  # the writer thread waits for it, training does not
        self._writer.put(_Item(step, time.time(), result.batch.example_ids, names, values))

    def on_end(self, context: FitContext, state: TrainState) -> None:
        if self._writer is None:
            return
        writer, self._writer = self._writer, None
        writer.close()
        if writer.dropped:
            context.log(state, {"example_losses/dropped_rows": float(writer.dropped)})
            reason = writer.failed or "the disk was slower than training; raise callbacks.example_losses.queue_size"
            logger.warning(f"{self.folder}: {writer.dropped} of {writer.seen} rows dropped: {reason}")


class _Item(NamedTuple):
    """One batch: names (K,) of the values (K, B)."""

    step: int
    time: float
    ids: np.ndarray
    names: tuple[str, ...]
    values: mx.array


class _Writer:
    """A thread that appends rows to one file and converts it to Parquet whenever it has enough rows."""

    def __init__(self, folder: Path, queue_size: int, rows_per_file: int) -> None:
        self.folder = folder
        self.seen = self.dropped = 0  # rows
        self.failed = ""  # the first error of the disk
        self._file = _AppendOnlyRows(folder, rows_per_file)
        self._items: queue.Queue[_Item] = queue.Queue(queue_size)
        self.closed = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="example losses", daemon=True)
        self._thread.start()

    def put(self, item: _Item) -> None:
        """Never waits."""
        self.seen += len(item.ids)
        try:
            self._items.put_nowait(item)
        except queue.Full:
            self._drop(len(item.ids))

    def close(self) -> None:
        """Waits for the thread; rows that it cannot write within a minute are dropped."""
        self.closed.set()
        self._thread.join(MAX_SECONDS)
        queued = sum(len(item.ids) for item in list(self._items.queue))
        if queued:
            self.failed = self.failed or f"the disk accepted nothing for {MAX_SECONDS:.0f} seconds"
            self._drop(queued)

    def _drop(self, rows: int) -> None:
        with self._lock:
            self.dropped += rows

    def _work(self) -> None:
        while (item := self._next()) is not None:
            if not self._try(lambda item=item: self._file.append(table_of(item))):  # type: ignore[misc]
                self._drop(len(item.ids))
            if self._file.full:
                self._try(self._file.finish)
        self._try(self._file.finish)  # on failure the row file remains, and is read like a Parquet file

    def _next(self) -> "_Item | None":
        """The next batch; None at the end."""
        while True:
            last = self.closed.is_set()  # read before the queue, so that no batch is missed in between
            with suppress(queue.Empty):
                return self._items.get(block=not last, timeout=TICK)
            if last:
                return None

    def _try(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except OSError as error:
            if not self.failed:
                self.failed = f"{self.folder}: {error.strerror or error}"
                logger.warning(f"per-example losses not written: {self.failed}; training continues")
            return False
        return True


class _AppendOnlyRows:
    """The file that collects rows for the next Parquet file, one `write` per batch."""

    def __init__(self, folder: Path, rows_per_file: int) -> None:
        self.folder, self.path, self.rows_per_file = folder, folder / example_losses.SPILL, rows_per_file
        self.file: int | None = None
        self.size = self.rows = 0
        self.finish_at = rows_per_file  # rows
        self.names: tuple[str, ...] = ()

    @property
    def full(self) -> bool:
        return self.rows >= self.finish_at

    def append(self, rows: np.ndarray) -> None:
        names = (rows.dtype.names or ())[len(example_losses.KEY_COLUMNS) :]
        if self.file is not None and names != self.names:
            self.finish()
        if self.file is None:
            self._open(names)
        self._write(rows.tobytes())
        self.rows += len(rows)

    def finish(self) -> None:
        """Converts the rows to a Parquet file."""
        if self.file is None:
            return
        self.finish_at = self.rows + self.rows_per_file  # after a failure, do not try again at the next batch
        example_losses.settle(self.folder)
        os.close(self.file)
        self.file, self.rows, self.finish_at = None, 0, self.rows_per_file

    def _open(self, names: tuple[str, ...]) -> None:
        self.folder.mkdir(exist_ok=True)
        self.file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self.size, self.names = 0, names
        self._write(json.dumps(names).encode() + b"\n")

    def _write(self, data: bytes) -> None:
        """All of it or nothing: a partial record would misalign all later ones."""
        assert self.file is not None
        try:
            if os.write(self.file, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            os.ftruncate(self.file, self.size)
            if not self.size:  # not even the heading was written
                os.close(self.file)
                self.file = None
            raise
        self.size += len(data)


def table_of(item: _Item) -> np.ndarray:
    """The rows of a batch as records; rows without a target are not examples."""
    values = dict(zip(item.names, np.array(item.values), strict=True))
    targets = values.pop("weight")
    total = values.pop("loss")
    real = targets > 0
    others = [name for name in values if name not in example_losses.VALUES]
    rows = np.zeros(int(real.sum()), example_losses.record([*example_losses.VALUES, *others]))
    rows["id"], rows["step"], rows["time"] = item.ids[real], item.step, item.time
    rows["kl"] = rows["cross_entropy"] = np.nan  # unless the loss has these terms
    rows["targets"], rows["sum"] = targets[real], total[real]
    rows["mean"] = rows["sum"] / rows["targets"]
    for name, part in values.items():
        rows[name] = part[real] / rows["targets"]
    return rows
