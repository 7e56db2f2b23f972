"""Every metric of a run in one CSV file: a row for each step at which anything was logged."""

import csv
import errno
import io
import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path

from mlxlab.constraints import FilePath
from mlxlab.errors import CannotCreateError, NotAllowedError
from mlxlab.files.atomic import remove_leftovers, write_atomic
from mlxlab.metric_names import ANALYSIS
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.state import StepResult, TrainState
from mlxlab.wording import counted

logger = logging.getLogger(__name__)

FIXED = ("step", "time", "epoch")
Row = dict[str, str]


class CSVLogger(Callback):
    """Columns: step, time (seconds since 1970), epoch, then every metric in the order in which they first appear.

    A new metric gets a new column; a metric that was not logged at a step leaves its field empty. A resumed run
    continues the file without the rows after its checkpoint. It has to be the last callback: it writes what the others
    logged at a step. Metrics that are computed later (`callbacks.analysis`) enter their rows at the end.

    Args:
        path: relative to the run folder, for example `metrics.csv`; null writes no file.
        allow_outside: permit a path outside the run folder.
    """

    def __init__(self, path: FilePath | None, allow_outside: bool, *, folder: Path) -> None:
        self.table = GrowingCsv(folder / path) if path is not None else None
        if (
            self.table
            and not allow_outside
            and not self.table.path.resolve().is_relative_to(folder.resolve())
        ):
            raise NotAllowedError(
                f"callbacks.csv.path={path}: outside the run folder; callbacks.csv.allow_outside=true permits it"
            )

    def on_start(self, context: FitContext, state: TrainState) -> None:
        if self.table is None:
            return
        try:
            self.table.path.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.table.path.parent)
            self.table.truncate_after(state.progress.step)
        except OSError as error:
            raise CannotCreateError(
                f"callbacks.csv.path: {self.table.path}: {error.strerror or error}"
            ) from None

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        self._write(state)

    def on_end(self, context: FitContext, state: TrainState) -> None:
        self._write(state)
        if self.table is None:
            return
        late = [(step, select_analysis(metrics)) for step, metrics in state.history.curve]
        self.table.add_late([(step, metrics) for step, metrics in late if metrics])
        if self.table.waiting:
            last = counted(len(self.table.waiting), "row")
            logger.warning(f"{self.table.path}: the last {last} could not be written")
        if self.table.path.is_file():
            context.tracker.log_artifact(self.table.path)

    def _write(self, state: TrainState) -> None:
        metrics = state.history.at(state.progress.step)
        if self.table is not None and metrics:
            self.table.put(state.progress.step, state.data.epoch, metrics)


def select_analysis(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name.startswith(ANALYSIS)}


def metrics_table(callbacks: Iterable[Callback]) -> Path | None:
    """The file of the first `CSVLogger` that writes one."""
    loggers = (each for each in callbacks if isinstance(each, CSVLogger))
    return next((each.table.path for each in loggers if each.table is not None), None)


class GrowingCsv:
    """A CSV file whose last row and columns may still grow; it is replaced by a new one when they do.

    Rows that the disk refuses wait in memory for the next write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: list[str] = []  # of the file; none if the file must be replaced
        self.waiting: list[Row] = []
        self._last: Row = {}
        self._warned = False

    def put(self, step: int, epoch: int, metrics: dict[str, float]) -> None:
        """Adds metrics to the row of a step: the last one, or a new one."""
        row = {"step": str(step), "epoch": str(epoch)} | {
            name: repr(float(value)) for name, value in metrics.items()
        }
        is_last = self._last.get("step") == row["step"]
        if is_last and not self.waiting and row.items() <= self._last.items():
            return
        self._last = self._last | row if is_last else row
        self.waiting.append({"time": f"{time.time():.3f}"} | row)
        try:
            if is_last or not row.keys() <= set(self.columns):
                self._replace([*self._read(), *self.waiting])
            else:
                data = _lines(self.columns, self.waiting)
                with self.path.open("r+b", buffering=0) as file:
                    file.seek(0, os.SEEK_END)
                    if file.write(data) < len(data):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self.columns = []  # its last line may be incomplete
            if not self._warned:
                logger.warning(f"{self.path}: {error.strerror or error}; its rows wait in memory")
            self._warned = True
            return
        self.waiting, self._warned = [], False

    def add_late(self, metrics: list[tuple[int, dict[str, float]]]) -> None:
        """Adds metrics that were logged after the row of their step was written, or a row for a step without one."""
        if not metrics or self.waiting:
            return
        rows = self._read()
        late = [
            {"step": str(step)} | {name: repr(float(x)) for name, x in values.items()}
            for step, values in metrics
        ]
        try:
            self._replace(sorted([*rows, *late], key=lambda row: int(row["step"])))
        except OSError as error:
            logger.warning(
                f"{self.path}: {error.strerror or error}; metrics that were logged late are missing"
            )

    def truncate_after(self, step: int) -> None:
        """Continues an existing file without the rows after `step` and without incomplete ones."""
        rows = [row for row in self._read() if int(row["step"]) <= step]
        if step and rows:
            self._replace(rows)
            self._last = rows[-1]
        else:
            self.path.unlink(missing_ok=True)

    def _replace(self, rows: list[Row]) -> None:
        """Writes all rows; those of the same step become one."""
        by_step: dict[str, Row] = {}
        for row in rows:
            by_step[row["step"]] = by_step.get(row["step"], {}) | row
        columns = list(dict.fromkeys([*FIXED, *(name for row in by_step.values() for name in row)]))
        write_atomic(
            self.path,
            _lines(columns, [{name: name for name in columns}, *by_step.values()]),
            durable=True,
        )
        self.columns = columns

    def _read(self) -> list[Row]:
        """The complete rows; none if there is no file, or it has another heading."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except (FileNotFoundError, UnicodeDecodeError):
            return []
        heading, *lines = [*csv.reader(io.StringIO(text[: text.rfind("\n") + 1]))] or [[]]
        if tuple(heading[: len(FIXED)]) != FIXED:
            return []
        complete = [line for line in lines if len(line) == len(heading) and line[0].isdecimal()]
        return [dict(zip(heading, line, strict=True)) for line in complete]


def _lines(columns: list[str], rows: list[Row]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        [row.get(name, "") for name in columns] for row in rows
    )
    return text.getvalue().encode()
