"""A multirun as a parent run: every job of the sweep becomes its child in the store."""

import atexit
import logging
import os
import shlex
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from mlxlab.errors import InputNotFoundError, UserError
from mlxlab.sweep import is_ours
from mlxlab.terminal.program import display_path

logger = logging.getLogger(__name__)


class ParentRun(Callback):
    """Opens a run in the sweep's folder. Jobs learn its uid from the environment, workers from their copy of this.

    Args:
        report: write the report of the sweep at its end.
    """

    def __init__(self, report: bool = True) -> None:
        self.report = report
        self.environment: dict[str, str] = {}  # variables that every job gets
        self.failed = 0  # jobs, as far as this process saw them
        self.tracker: Any = None  # Every run imports this module, and needs no tracker.

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        if not is_ours(config.hydra.sweeper):
            self.open(config)

    def on_multirun_end(self, config: DictConfig, **_: object) -> None:
        if not is_ours(config.hydra.sweeper):
            self.close(config, exit_code=int(self.failed > 0))

    def open(self, config: DictConfig) -> None:
        """Opens the run; our sweepers do so once they hold the folder."""
        from mlxlab.analysis.sweeps.sweep_start import FILE as SWEEP
        from mlxlab.config.hydra.job import as_typed
        from mlxlab.config.instantiate import instantiate
        from mlxlab.config.paths import project_root
        from mlxlab.tracking.journal import PARENT
        from mlxlab.tracking.records import FILE as JOURNAL
        from mlxlab.tracking.tracker import OVERRIDES

        folder = sweep_folder(config)
        node: Any = OmegaConf.to_container(config.tracking, resolve=True)
        tracker = instantiate(node, folder=folder, project=project_root())
        task = as_typed(config.hydra.overrides.task)
        is_of_job = OmegaConf.is_interpolation(config, "name")  # such as "${hydra:job.num}"
        name = (None if is_of_job else config.get("name")) or f"sweep {folder.name}"
        tags = {OVERRIDES: shlex.join(task)}
        is_continued = (folder / JOURNAL).is_file() and (folder / SWEEP).is_file()
        tracker.start({"overrides": task}, tags, resumed=is_continued, name=name)
        self.tracker = tracker
        if tracker.uid:  # not tracking=none
            self.environment = {PARENT: tracker.uid}
            os.environ.update(self.environment)
            atexit.register(
                self._end, "FAILED"
            )  # Hydra calls no on_multirun_end after a failure or Ctrl-C

    def on_job_start(self, config: DictConfig, **_: object) -> None:
        os.environ.update(self.environment)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: object) -> None:
        self.failed += job_return.status == JobStatus.FAILED

    def close(self, config: DictConfig, exit_code: int) -> None:
        """Closes the run of a sweep with this exit code."""
        if self.report:
            self._write_report(sweep_folder(config))
        status = "FAILED" if exit_code else "FINISHED"
        self._end("KILLED" if exit_code > 128 else status)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "tracker": None}  # An open file does not travel.

    def _write_report(self, folder: Path) -> None:
        """What a sweep has left behind; one without any job has no report, and a report that fails ends nothing."""
        from mlxlab.analysis.sweeps.sweep_jobs import read_sweep
        from mlxlab.analysis.sweeps.sweep_report import write_sweep_report

        try:
            report = write_sweep_report(read_sweep(folder), folder)
        except InputNotFoundError:
            return
        except (UserError, OSError) as error:
            logger.warning(f"no report of the sweep: {error}")
            return
        self.tracker.log_artifact(report.page)
        self.tracker.log_artifact(report.folder, report.folder.name)
        logger.info("\n".join([*report.verdict, f"report: {display_path(report.page)}"]))

    def _end(self, status: str) -> None:
        tracker = self.tracker
        self.tracker = None
        if tracker is not None:
            for name in self.environment:
                os.environ.pop(name, None)
            tracker.end(status)


def sweep_folder(config: DictConfig) -> Path:
    """The folder of the sweep, absolute."""
    from mlxlab.config.hydra.job import job_config  # Every run imports this module.

    with job_config(config):
        return Path(str(config.hydra.sweep.dir)).absolute()
