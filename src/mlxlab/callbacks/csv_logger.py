"""Every metric of a run as one CSV file: a row per step at which anything was logged."""

import csv
import io
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlxlab.constraints import FilePath
from mlxlab.errors import CannotCreateError
from mlxlab.training.state import Run

FIXED = ("step", "time", "epoch")
Row = dict[str, str]


class CSVLogger:
    """Columns: step, time (seconds since 1970), epoch, then every metric in the order in which they first came.

    A metric that is new gets a column of its own. A resumed run goes on in the same file, without the rows after its
    checkpoint. Empty: not logged at that step.

    Args:
        file: in the run folder, `metrics.csv` say; null writes none.
    """

    def __init__(self, file: FilePath | None, *, folder: Path) -> None:
        self.table = GrowingCsv(folder / file) if file is not None else None

    def on_start(self, run: Run) -> None:
        if self.table is None:
            return
        try:
            self.table.path.parent.mkdir(parents=True, exist_ok=True)
            self.table.rewind(run.step)
        except OSError as error:
            raise CannotCreateError(f"callbacks.csv.file: {self.table.path}: {error.strerror or error}") from None
        table, log = self.table, lambda step, metrics: table.put(step, run.train.epoch, metrics)
        run.tracker = _Overheard(run.tracker, log)

    def on_step(self, run: Run) -> None: ...

    def on_end(self, run: Run) -> None:
        if self.table is None:
            return
        if self.table.unsaved:
            print(f"{self.table.path}: the last {self.table.unsaved} rows could not be written", file=sys.stderr)
        if self.table.path.is_file():
            run.tracker.log_artifact(self.table.path)


class _Overheard:
    """A tracker whose `log_metrics` somebody else hears too."""

    def __init__(self, tracker: Any, heard: Callable[[int, dict[str, float]], None]) -> None:
        self._tracker, self._heard = tracker, heard

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tracker, name)

    def log_metrics(self, step: int, metrics: dict[str, float]) -> None:
        self._tracker.log_metrics(step, metrics)
        self._heard(step, metrics)


class GrowingCsv:
    """A CSV file whose last row may still grow. What the disk refuses waits in memory for the next row."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: list[str] = []  # of the file
        self.names: list[str] = list(FIXED)  # all that there are
        self.offset = 0  # where in the file the tail begins
        self.tail: list[Row] = []  # the last row, and before it those that are not on the disk yet
        self._warned = False

    @property
    def unsaved(self) -> int:
        """Rows that the disk does not have."""
        return len(self.tail) if self._warned else 0

    def put(self, step: int, epoch: int, metrics: dict[str, float]) -> None:
        """Adds metrics to the row of a step, the last one or a new one."""
        if not self.tail or self.tail[-1]["step"] != str(step):
            self.tail.append({"step": str(step), "time": f"{time.time():.3f}", "epoch": str(epoch)})
        self.tail[-1] |= {name: repr(float(value)) for name, value in metrics.items()}
        self.names += [name for name in metrics if name not in self.names]
        self._save()

    def rewind(self, step: int) -> None:
        """Goes on with a file that is there: without the rows after `step`, and whatever is no whole row."""
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
                self._write_anew()
        except OSError as error:
            if not self._warned:
                print(f"{self.path}: {error.strerror or error}; its rows wait in memory", file=sys.stderr)
            self._warned = True
            return
        self._warned = False
        self.offset += len(_lines(self.columns, self.tail[:-1]))
        self.tail = self.tail[-1:]

    def _write_tail(self) -> None:
        # Over what is there, then cut: at no moment is a row missing.
        with self.path.open("r+b", buffering=0) as file:
            file.seek(self.offset)
            data = _lines(self.columns, self.tail)
            if file.write(data) < len(data):
                raise OSError("no space left")
            file.truncate()

    def _write_anew(self) -> None:
        """With other columns, as a new file that takes the place of the old one."""
        before = self._read(self.offset) if self.columns else []
        head = _lines(self.names, [{name: name for name in self.names}, *before])
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        with temporary.open("wb") as file:
            file.write(head + _lines(self.names, self.tail))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)
        self.columns, self.offset = list(self.names), len(head)

    def _read(self, size: int = -1) -> list[Row]:
        """The whole rows among the first `size` bytes; none if there is no file, or it is none of ours."""
        try:
            with self.path.open("rb") as file:
                text = file.read(size).decode()
        except (FileNotFoundError, UnicodeDecodeError):
            return []
        lines = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1])))
        if not lines or tuple(lines[0][: len(FIXED)]) != FIXED:
            return []
        whole = [line for line in lines[1:] if len(line) == len(lines[0]) and line[0].isdecimal()]
        return [dict(zip(lines[0], line, strict=True)) for line in whole]


def _lines(columns: list[str], rows: list[Row]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([row.get(name, "") for name in columns] for row in rows)
    return text.getvalue().encode()
