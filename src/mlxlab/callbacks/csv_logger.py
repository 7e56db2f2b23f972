"""Every metric of a run in one CSV file: a row for each step at which anything was logged."""

import logging
import time
from collections.abc import Iterable
from pathlib import Path

from mlxlab.errors import CannotCreateError, NotAllowedError
from mlxlab.files.atomic import remove_leftovers, write_atomic
from mlxlab.schema.constraints import FilePath
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.state import StepResult, TrainState

logger = logging.getLogger(__name__)

Row = dict[str, str]


class CSVLogger(Callback):
    """Columns: step, time (seconds since 1970), epoch, then every metric in the order in which they first appear.

    A metric that was not logged at a step leaves its field empty. The file is replaced at every evaluation, before
    every checkpoint and at the end, so that a resumed run finds all rows up to its checkpoint. It has to be the last
    callback: it writes what the others logged at a step. Metrics that are computed later (`callbacks.analysis`) enter
    their rows at the end.

    Args:
        path: relative to the run folder, for example `metrics.csv`; null writes no file.
        allow_outside: permit a path outside the run folder.
    """

    def __init__(self, path: FilePath | None, allow_outside: bool, *, folder: Path) -> None:
        self.path: Path | None = None
        if path is None:
            return
        self.path = folder / path
        if not allow_outside and not self.path.resolve().is_relative_to(folder.resolve()):
            raise NotAllowedError(
                f"callbacks.csv.path={path}: outside the run folder; callbacks.csv.allow_outside=true permits it"
            )

    def on_start(self, context: FitContext, state: TrainState) -> None:
        if self.path is None:
            return
        step = state.progress.step
        self._is_complete = True
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.path.parent)
            self.rows: dict[int, Row] = {}
            if step:
                self.rows = _read(self.path, step)
            self._replace(self.path)
        except OSError as error:
            reason = error.strerror or error
            raise CannotCreateError(f"callbacks.csv.path: {self.path}: {reason}") from None
        before_save = state.before_save

        def save_rows() -> None:
            before_save()
            self._write()

        state.before_save = save_rows

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        if self.path is None:
            return
        step = state.progress.step
        metrics = state.history.at(step)
        if metrics:
            new = {"step": str(step), "time": f"{time.time():.3f}", "epoch": str(state.data.epoch)}
            self.rows[step] = new | self.rows.get(step, {})
            self._add(step, metrics)
        if result.evaluation is not None:
            self._write()

    def on_end(self, context: FitContext, state: TrainState) -> None:
        if self.path is None:
            return
        for step, metrics in state.history.curve:
            self._add(step, metrics)
        self._write()
        if self.path.is_file():
            context.tracker.log_artifact(self.path)

    def _add(self, step: int, metrics: dict[str, float]) -> None:
        row = self.rows.setdefault(step, {"step": str(step), "time": "", "epoch": ""})
        row.update({name: repr(float(value)) for name, value in metrics.items()})

    def _write(self) -> None:
        """Replaces the file. Rows that the disk refuses are written the next time."""
        assert self.path is not None
        try:
            self._replace(self.path)
            self._is_complete = True
        except OSError as error:
            if self._is_complete:
                logger.warning(f"{self.path}: {error.strerror or error}; its rows wait in memory")
            self._is_complete = False

    def _replace(self, path: Path) -> None:
        import pandas as pd

        columns = None if self.rows else ["step", "time", "epoch"]
        table = pd.DataFrame([self.rows[step] for step in sorted(self.rows)], columns=columns)
        write_atomic(path, table.to_csv(index=False, lineterminator="\n"), durable=True)


def metrics_table(callbacks: Iterable[Callback]) -> Path | None:
    """The file of the first `CSVLogger` that writes one."""
    paths = [each.path for each in callbacks if isinstance(each, CSVLogger)]
    return next(filter(None, paths), None)


def _read(path: Path, last_step: int) -> dict[int, Row]:
    """The rows up to a step; none if there is no file, or another one."""
    import pandas as pd

    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records")
        numbered = {int(row["step"]): row for row in rows}
    except (FileNotFoundError, KeyError, ValueError):
        return {}
    return {step: row for step, row in numbered.items() if step <= last_step}
