"""A multirun as a parent run: every job of the sweep becomes its child in the store."""

import atexit
import logging
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from mlxlab.errors import InputNotFoundError, UserError
from mlxlab.program import display_path
from mlxlab.tracking.journal import PARENT
from mlxlab.tracking.tracker import NoTracker, Status, Tracker

logger = logging.getLogger(__name__)


class ParentRun(Callback):
    """Opens a run in the sweep's folder. Jobs learn its uid from the environment, workers from their copy of this.

    Args:
        report: write the report of the sweep at its end.
    """

    def __init__(self, report: bool = True) -> None:
        self.report = report
        self.uid = ""
        self.failed = 0  # jobs, as far as this process saw them
        self._tracker: Tracker = NoTracker()

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        from mlxlab.config.hydra.overrides import as_typed
        from mlxlab.config.instantiate import instantiate
        from mlxlab.config.paths import project_root
        from mlxlab.experiment.sweep_start import FILE as SWEEP
        from mlxlab.tracking.records import FILE as JOURNAL

        folder = sweep_folder(config)
        node: Any = OmegaConf.to_container(config.tracking, resolve=True)
        self._tracker = instantiate(node, folder=folder, project=project_root())
        task = as_typed(config.hydra.overrides.task)
        is_of_job = OmegaConf.is_interpolation(config, "name")  # such as "${hydra:job.num}"
        kind = "trial" if config.hydra.runtime.choices["hydra/sweeper"] == "paired" else "sweep"
        name = (None if is_of_job else config.get("name")) or f"{kind} {folder.name}"
        tags = {"overrides": shlex.join(task), "kind": kind}
        is_continued = (folder / JOURNAL).is_file() and (folder / SWEEP).is_file()
        self._tracker.start({"overrides": task}, tags, resumed=is_continued, name=name)
        self.uid = self._tracker.uid
        if self.uid:  # not tracking=none
            os.environ[PARENT] = self.uid
            atexit.register(
                self._end, "FAILED"
            )  # Hydra calls no on_multirun_end after a failure or Ctrl-C

    def on_job_start(self, config: DictConfig, **_: object) -> None:
        if self.uid:
            os.environ[PARENT] = self.uid

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: object) -> None:
        self.failed += job_return.status == JobStatus.FAILED

    def on_multirun_end(
        self,
        config: DictConfig,
        exit_code: int = 0,
        log: Callable[[Tracker], None] | None = None,
        **_: object,
    ) -> None:
        """Closes the run.

        Args:
            exit_code: of the sweep, where its jobs ran in other processes.
            log: records results of a sweep of its own kind, in which a job may fail.
        """
        if log is not None:
            log(self._tracker)
            self.failed = 0
        if self.report:
            self._write_report(sweep_folder(config))
        stopped = exit_code > 128
        self._end("KILLED" if stopped else "FAILED" if self.failed or exit_code else "FINISHED")

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_tracker": NoTracker()}  # an open file does not travel

    def _write_report(self, folder: Path) -> None:
        """What a sweep has left behind; one without any job has no report, and a report that fails ends nothing."""
        from mlxlab.sweep.reports.read_sweep import read_sweep
        from mlxlab.sweep.reports.sweep_report import write_sweep_report

        try:
            report = write_sweep_report(read_sweep(folder), folder)
        except InputNotFoundError:
            return
        except UserError as error:
            logger.warning(f"no report of the sweep: {error}")
            return
        self._tracker.log_artifact(report.page)
        self._tracker.log_artifact(report.folder, report.folder.name)
        logger.info("\n".join([*report.verdict, f"report: {display_path(report.page)}"]))

    def _end(self, status: Status) -> None:
        tracker, self._tracker = self._tracker, NoTracker()
        if tracker.uid:
            os.environ.pop(PARENT, None)
        tracker.end(status)


def sweep_folder(config: DictConfig) -> Path:
    """The folder of the sweep, absolute. Hydra has not set HydraConfig yet: `${hydra:...}` needs it."""
    holder = HydraConfig.instance()
    before, holder.cfg = holder.cfg, None
    try:
        holder.set_config(config)
        return Path(str(config.hydra.sweep.dir)).absolute()
    finally:
        holder.cfg = before
