"""Runs in Trackio. A row of metrics carries the position in the journal after it, which says what Trackio has."""

import os
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlxlab.extensions.tracking_services.service import (
    check_package,
    check_project,
    config_of,
    floats,
)
from mlxlab.tracking.destination import Entry
from mlxlab.tracking.records import Record, RunStart

if TYPE_CHECKING:
    import trackio

POSITION = "journal/position"


@dataclass(frozen=True)
class Trackio:
    """Trackio: metrics and parameters on this machine, or in a space of Hugging Face; no files.

    Args:
        project: of Trackio, in which the run is recorded.
        space: of Hugging Face, as `user/name`, whose account is that of HF_TOKEN; null records on
            this machine, in TRACKIO_DIR or the cache of Hugging Face, for `trackio show`.
    """

    project: str = "mlxlab"
    space: str | None = None

    def check(self) -> None:
        check_package("trackio")
        check_project("tracking.trackio.project", self.project)
        if self.space is not None:
            check_project("tracking.trackio.space", self.space.replace("/", "-", 1))

    def queue_folder(self, project: Path) -> Path:
        return project / "mlruns" / f".queue-trackio-{self.project}"

    def connect(self) -> "Trackio":
        return self

    def open_run(self, entry: Entry, start: RunStart, t: int) -> "TrackioRun":
        with open(os.devnull, "w") as devnull, redirect_stdout(devnull):
            import trackio
            from trackio.sqlite_storage import SQLiteStorage

            # Trackio finds a run by its name, which must differ from those of other runs.
            name = f"{start['name']}-{entry.uid[:8]}"
            rows = SQLiteStorage.get_logs(self.project, name)
            run = trackio.init(
                self.project,
                name=name,
                group=start["parent"],
                space_id=self.space,
                config=config_of({"t": t, "start": start}),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        return TrackioRun(run, max((int(row.get(POSITION, 0)) for row in rows), default=0))

    def is_fault_of_journal(self, error: Exception) -> bool:
        return False

    def describe(self) -> str:
        space = f" (space {self.space})" if self.space else ""
        return f"Trackio project {self.project}{space}"

    def options(self, project: Path) -> list[str]:
        space = [f"space={self.space}"] if self.space else []
        return ["to=trackio", f"project={self.project}", *space]


class TrackioRun:
    """A run in Trackio, which keeps neither files nor models; see `destination.Upload`."""

    def __init__(self, run: "trackio.Run", position: int) -> None:
        self.run = run
        self.position = position
        self.has_ended = False
        self.notes: list[str] = []

    def add(self, record: Record, position: int) -> None:
        if "m" in record:
            self.run.log({**floats(record["m"]), POSITION: position}, step=record["s"])
        elif "end" in record:
            with open(os.devnull, "w") as devnull, redirect_stdout(devnull):
                self.run.finish()
            self.has_ended = True
        else:
            self.run.config.update(config_of(record))
        self.position = position

    def flush(self) -> None:
        """Trackio sends by itself."""
