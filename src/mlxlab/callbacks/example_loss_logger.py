"""Writes what every example cost: one array a batch leaves the device, a thread of its own brings it to the disk."""

import errno
import json
import os
import queue
import sys
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
from mlxlab.training.state import Run

FIXED = ("loss", "weight")  # of `run.rows`; the others are parts of the loss
TICK = 0.2  # seconds between looks whether the run has ended
SECONDS = 60.0  # at most, to write what waits when a run ends


class ExampleLossLogger:
    """Logs id, loss (sum, and mean per target), KL, CE, number of targets, step and time of each training example.

    They go to `<run folder>/example_losses` as Parquet; `scripts/examples.py` reads them, `data.select` chooses by
    them. Training never waits: what does not fit into the queue is dropped, counted, and said at the end.

    Args:
        every: updates between batches that are logged, 1 logs every example; null logs none.
        queue: batches that may wait for the disk.
        part: rows of one Parquet file.
    """

    def __init__(self, every: Size | None, queue: Size, part: Size, *, folder: Path) -> None:
        self.every, self.depth, self.part = every, queue, part
        self.folder = folder / example_losses.FOLDER
        self._writer: _Writer | None = None

    def on_start(self, run: Run) -> None:
        if self.folder.is_dir():
            example_losses.settle(self.folder, run.step)
        if self.every is not None:
            self._writer = _Writer(self.folder, self.depth, self.part)

    def on_step(self, run: Run) -> None:
        if self._writer is None or run.batch is None or run.step % (self.every or 1):
            return
        names = (*FIXED, *sorted(run.rows.keys() - set(FIXED)))
        values = mx.stack([run.rows[name].astype(mx.float32) for name in names])  # (K, B)
        mx.async_eval(values)  # the thread waits for it: nobody else does
        self._writer.put(_Item(run.step, time.time(), run.batch.ids, names, values))

    def on_end(self, run: Run) -> None:
        if self._writer is None:
            return
        writer, self._writer = self._writer, None
        writer.close()
        if writer.dropped:
            run.log({"example_losses/dropped": float(writer.dropped)})
            reason = writer.failed or "the disk was slower than training; raise callbacks.example_losses.queue"
            print(f"{self.folder}: {writer.dropped} of {writer.seen} rows dropped: {reason}", file=sys.stderr)


class _Item(NamedTuple):
    """One batch: names (K,) of the values (K, B)."""

    step: int
    time: float
    ids: np.ndarray
    names: tuple[str, ...]
    values: mx.array


class _Writer:
    """A thread that appends to the spill and makes a part of it whenever it is long enough."""

    def __init__(self, folder: Path, depth: int, part: int) -> None:
        self.folder = folder
        self.seen = self.dropped = 0  # rows
        self.failed = ""  # why the disk took nothing, the first time
        self._spill = _AppendOnlyRows(folder, part)
        self._items: queue.Queue[_Item] = queue.Queue(depth)
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
        """Waits for the thread; what it cannot write in a minute is dropped."""
        self.closed.set()
        self._thread.join(SECONDS)
        waiting = sum(len(item.ids) for item in list(self._items.queue))
        if waiting:
            self.failed = self.failed or f"the disk took nothing for {SECONDS:.0f} seconds"
            self._drop(waiting)

    def _drop(self, rows: int) -> None:
        with self._lock:
            self.dropped += rows

    def _work(self) -> None:
        while (item := self._next()) is not None:
            if not self._done(lambda item=item: self._spill.append(table_of(item))):  # type: ignore[misc]
                self._drop(len(item.ids))
            if self._spill.full:
                self._done(self._spill.finish)
        self._done(self._spill.finish)  # where that fails the spill stays, and is read like a part

    def _next(self) -> "_Item | None":
        """The next batch; None once there will be no more."""
        while True:
            last = self.closed.is_set()  # asked before the look, so that nothing comes between
            with suppress(queue.Empty):
                return self._items.get(block=not last, timeout=TICK)
            if last:
                return None

    def _done(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except OSError as error:
            if not self.failed:
                self.failed = f"{self.folder}: {error.strerror or error}"
                print(f"losses by example not written: {self.failed}; training goes on", file=sys.stderr)
            return False
        return True


class _AppendOnlyRows:
    """The file that takes the rows of a part, one `write` a batch."""

    def __init__(self, folder: Path, part: int) -> None:
        self.folder, self.path, self.part = folder, folder / example_losses.SPILL, part
        self.file: int | None = None
        self.size = self.rows = 0
        self.due = part
        self.names: tuple[str, ...] = ()

    @property
    def full(self) -> bool:
        return self.rows >= self.due

    def append(self, rows: np.ndarray) -> None:
        names = (rows.dtype.names or ())[len(example_losses.WHOLE) :]
        if self.file is not None and names != self.names:
            self.finish()
        if self.file is None:
            self._open(names)
        self._write(rows.tobytes())
        self.rows += len(rows)

    def finish(self) -> None:
        """Makes a part of it."""
        if self.file is None:
            return
        self.due = self.rows + self.part  # if it fails the next try is not at once
        example_losses.settle(self.folder)
        os.close(self.file)
        self.file, self.rows, self.due = None, 0, self.part

    def _open(self, names: tuple[str, ...]) -> None:
        self.folder.mkdir(exist_ok=True)
        self.file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self.size, self.names = 0, names
        self._write(json.dumps(names).encode() + b"\n")

    def _write(self, data: bytes) -> None:
        """All of it or nothing: a torn record would shift those behind it."""
        assert self.file is not None
        try:
            if os.write(self.file, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            os.ftruncate(self.file, self.size)
            if not self.size:  # not even its first line
                os.close(self.file)
                self.file = None
            raise
        self.size += len(data)


def table_of(item: _Item) -> np.ndarray:
    """The rows of a batch, as records; rows without a target are no examples."""
    values = dict(zip(item.names, np.array(item.values), strict=True))
    targets = values.pop("weight")
    total = values.pop("loss")
    real = targets > 0
    others = [name for name in values if name not in example_losses.VALUES]
    rows = np.zeros(int(real.sum()), example_losses.record([*example_losses.VALUES, *others]))
    rows["id"], rows["step"], rows["time"] = item.ids[real], item.step, item.time
    rows["kl"] = rows["cross_entropy"] = np.nan  # unless the loss says
    rows["targets"], rows["sum"] = targets[real], total[real]
    rows["mean"] = rows["sum"] / rows["targets"]
    for name, part in values.items():
        rows[name] = part[real] / rows["targets"]
    return rows
