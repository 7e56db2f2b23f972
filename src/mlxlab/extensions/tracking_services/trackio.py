"""Runs in Trackio."""

import os
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlxlab.extensions.tracking_services.service import Value, check_package, check_project, typed
from mlxlab.extensions.tracking_services.upload import UploadedService
from mlxlab.tracking.records import RunStart
from mlxlab.tracking.tracker import Status

if TYPE_CHECKING:
    import trackio


@dataclass(frozen=True)
class Trackio(UploadedService):
    """Trackio: metrics and parameters on this machine, or in a space of Hugging Face; no files.

    Args:
        project: of Trackio, in which the run is recorded.
        space: of Hugging Face, as `user/name`, whose account is that of HF_TOKEN; null records on
            this machine, in TRACKIO_DIR or the cache of Hugging Face, for `trackio show`.
    """

    project: str = "mlxlab"
    space: str | None = None
    name = "trackio"

    def check(self) -> None:
        check_package(self.name)
        check_project("tracking.trackio.project", self.project)
        if self.space is not None:
            check_project("tracking.trackio.space", self.space.replace("/", "-", 1))

    def open(self, project: Path, start: RunStart) -> "TrackioRun":
        with open(os.devnull, "w") as devnull, redirect_stdout(devnull):
            import trackio

            # Trackio finds a run by its name, which must differ from those of other runs.
            run = trackio.init(
                self.project,
                name=f"{start['name']}-{start['uid'][:8]}",
                group=start["parent"],
                space_id=self.space,
                config=typed(start["params"]),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        return TrackioRun(run)

    def describe(self) -> str:
        space = f" (space {self.space})" if self.space else ""
        return f"Trackio project {self.project}{space}"


class TrackioRun:
    """An open run of Trackio, which keeps neither files nor models."""

    def __init__(self, run: "trackio.Run") -> None:
        self.run = run

    def log(self, step: int, metrics: dict[str, float], t: int) -> None:
        self.run.log(dict(metrics), step=step)

    def set_config(self, values: dict[str, Value]) -> None:
        self.run.config.update(values)

    def log_artifact(self, folder: Path, path: str, to: str) -> None:
        return

    def log_model(self, folder: Path, files: dict[str, str], step: int) -> None:
        return

    def end(self, status: Status) -> None:
        with open(os.devnull, "w") as devnull, redirect_stdout(devnull):
            self.run.finish()
