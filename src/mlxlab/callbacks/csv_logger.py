"""Every metric of a run in one CSV file: a row for each step at which anything was logged."""

import csv
import io
import logging
import time
from pathlib import Path

from mlxlab.constraints import FilePath
from mlxlab.errors import CannotCreateError, NotAllowedError
from mlxlab.files.atomic import remove_leftovers, write_atomic
from mlxlab.training.context import FitContext
from mlxlab.training.state import StepResult, TrainState

logger = logging.getLogger(__name__)

FIXED = ("step", "time", "epoch")
Row = dict[str, str]


class CSVLogger:
    """Columns: step, time (seconds since 1970), epoch, then every metric in the order in which they first appear.

    A new metric gets a new column; a metric that was not logged at a step leaves its field empty. A resumed run
    continues the file without the rows after its checkpoint. It has to be the last callback: it writes what the others
    logged at a step.

    Args:
        path: relative to the run folder, for example `metrics.csv`; null writes no file.
        allow_outside: permit a path outside the run folder.
    """

    runs_on_all_ranks = False

    def __init__(self, path: FilePath | None, allow_outside: bool, *, folder: Path) -> None:
        self.table: GrowingCsv | None = None
        if path is None:
            return
        file = folder / path
        if not allow_outside and not file.resolve().is_relative_to(folder.resolve()):
            raise NotAllowedError(
                f"callbacks.csv.path={path}: outside the run folder; callbacks.csv.allow_outside=true permits it"
            )
        self.table = GrowingCsv(file)

    def on_start(self, context: FitContext, state: TrainState) -> None:
        if self.table is None:
            return
        try:
            self.table.path.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.table.path.parent)
            self.table.rewind(state.progress.step)
        except OSError as error:
            raise CannotCreateError(f"callbacks.csv.path: {self.table.path}: {error.strerror or error}") from None

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        self._write(state)

    def on_end(self, context: FitContext, state: TrainState) -> None:
        if self.table is None:
            return
        self._write(state)
        if self.table.unsaved:
            logger.warning(f"{self.table.path}: the last {self.table.unsaved} rows could not be written")
        if self.table.path.is_file():
            context.tracker.log_artifact(self.table.path)

    def _write(self, state: TrainState) -> None:
        metrics = state.history.at(state.progress.step)
        if self.table is not None and metrics:
            self.table.put(state.progress.step, state.data.epoch, metrics)


class GrowingCsv:
    """A CSV file whose last row may still grow. Rows that the disk refuses wait in memory for the next write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: list[str] = []  # of the file
        self.names: list[str] = list(FIXED)  # of all rows
        self.offset = 0  # in bytes, where `tail` begins in the file
        self.tail: list[Row] = []  # the last row, preceded by those that are not on the disk yet
        self._warned = False

    @property
    def unsaved(self) -> int:
        """Number of rows that are not on the disk."""
        return len(self.tail) if self._warned else 0

    def put(self, step: int, epoch: int, metrics: dict[str, float]) -> None:
        """Adds metrics to the row of a step: the last one, or a new one."""
        if not self.tail or self.tail[-1]["step"] != str(step):
            self.tail.append({"step": str(step), "time": f"{time.time():.3f}", "epoch": str(epoch)})
        row = {name: repr(float(value)) for name, value in metrics.items()}
        if not self._warned and self.tail[-1] | row == self.tail[-1]:
            return
        self.tail[-1] |= row
        self.names += [name for name in metrics if name not in self.names]
        self._save()

    def rewind(self, step: int) -> None:
        """Continues an existing file without the rows after `step` and without incomplete ones."""
        rows = [row for row in self._read() if int(row["step"]) <= step]
        if step and rows:
            self.names = list(rows[0])
            self.tail, self.columns, self.offset = rows, [], 0
            self._save()
        else:
            self.path.unlink(missing_ok=True)

    def _save(self) -> None:
        try:
            if self.columns == self.names:
                self._write_tail()
            else:
                self._rewrite()
        except OSError as error:
            if not self._warned:
                logger.warning(f"{self.path}: {error.strerror or error}; its rows wait in memory")
            self._warned = True
            return
        self._warned = False
        self.offset += len(_lines(self.columns, self.tail[:-1]))
        self.tail = self.tail[-1:]

    def _write_tail(self) -> None:
        # Overwrite, then truncate: at no moment is a row missing.
        with self.path.open("r+b", buffering=0) as file:
            file.seek(self.offset)
            data = _lines(self.columns, self.tail)
            if file.write(data) < len(data):
                raise OSError("no space left")
            file.truncate()

    def _rewrite(self) -> None:
        """Replaces the file by one with the new columns."""
        before = self._read(self.offset) if self.columns else []
        head = _lines(self.names, [{name: name for name in self.names}, *before])
        write_atomic(self.path, head + _lines(self.names, self.tail), durable=True)
        self.columns, self.offset = list(self.names), len(head)

    def _read(self, size: int = -1) -> list[Row]:
        """The complete rows in the first `size` bytes; none if there is no file, or it has another heading."""
        try:
            with self.path.open("rb") as file:
                text = file.read(size).decode()
        except (FileNotFoundError, UnicodeDecodeError):
            return []
        lines = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1])))
        if not lines or tuple(lines[0][: len(FIXED)]) != FIXED:
            return []
        complete = [line for line in lines[1:] if len(line) == len(lines[0]) and line[0].isdecimal()]
        return [dict(zip(lines[0], line, strict=True)) for line in complete]


def _lines(columns: list[str], rows: list[Row]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([row.get(name, "") for name in columns] for row in rows)
    return text.getvalue().encode()
