"""The sweeper of the command `trial`: trains a baseline and a change of it in pairs, until their gains decide."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from mlxlab.analysis.trial.figure import FILE as PAIRS
from mlxlab.analysis.trial.figure import draw_pairs
from mlxlab.analysis.trial.record import FILE, TrialRecord, read_record
from mlxlab.constraints import NonNegative
from mlxlab.figures import save_figure
from mlxlab.sweep.continued_sweep import sweep_start
from mlxlab.sweep.job_journal import open_job_journal
from mlxlab.sweep.launcher.build import open_jobs
from mlxlab.sweep.launcher.jobs import SweepContext
from mlxlab.sweep.paired.output import output_to_file
from mlxlab.sweep.paired.pairs import Pairs
from mlxlab.sweep.parent_run import sweep_folder
from mlxlab.tracking.tracker import Tracker

OUTPUT = "output.log"  # of runs that have no file of their own


class PairedSweeper:
    """Trains the runs of the trial whose question is in the sweep's folder.

    Args:
        seconds: after which no further pair starts; null is no limit.
    """

    def __init__(
        self,
        seconds: NonNegative | None,
        *,
        config: DictConfig,
        context: HydraContext,
        task: TaskFunction,
    ) -> None:
        self.seconds, self.config, self.hydra, self.task = seconds, config, context, task

    def sweep(self) -> int:
        """Runs the pairs that are missing; returns 128 + the number of a signal that came before the verdict, else 0.

        Raises:
            CannotCreateError: another process runs this trial, or its folder cannot be made.
            DataError: the record in the folder is damaged.
            UserError: a run failed for a reason that says nothing of the change.
        """
        folder = sweep_folder(self.config)
        with open_job_journal(folder, sweep_start(self.config)) as journal:
            record: TrialRecord = read_record(folder)
            OmegaConf.save(self.config, folder / "multirun.yaml")
            self.hydra.callbacks.on_multirun_start(config=self.config, config_name="train")
            exit_code = 1
            try:
                context = SweepContext(self.config, self.hydra, self.task)
                with (
                    self._output(folder) as show,
                    open_jobs(self.config, self.hydra, self.task) as launcher,
                ):
                    Pairs(folder, record, journal, context, launcher, show).run(self.seconds)
                    exit_code = 0 if record["verdict"] else 128 + launcher.stop_signal
            finally:
                self.hydra.callbacks.on_multirun_end(
                    config=self.config,
                    config_name="train",
                    exit_code=exit_code,
                    log=partial(log_trial, record, folder),
                )
        return exit_code

    def _output(self, folder: Path) -> AbstractContextManager[Callable[[str], None]]:
        """What shows a line of progress. Runs in this process print to a file, others do so by themselves."""
        if str(self.config.hydra.launcher._target_).endswith(".InProcessLauncher"):
            return output_to_file(folder / OUTPUT)
        return nullcontext(partial(print, file=sys.stderr, flush=True))


def log_trial(record: TrialRecord, folder: Path, tracker: Tracker) -> None:
    """Records a trial as the parent of its runs: verdict, gain and interval by the number of pairs, and files."""
    tags = {"kind": "trial", "trial.baseline": record["question"]["baseline"]}
    tags["trial.change"] = " ".join(record["question"]["change"])
    if record["verdict"] is not None:
        tags |= {"trial.verdict": record["verdict"], "trial.reason": record["reason"]}
    tracker.set_tags(tags)
    for each in record["looks"]:
        values = {"trial/gain": each["mean"], "trial/low": each["low"], "trial/high": each["high"]}
        tracker.log_metrics(
            each["pairs"], {name: value for name, value in values.items() if value is not None}
        )
    tracker.log_artifact(folder / FILE)
    if (figure := draw_pairs(record)) is not None:
        save_figure(tracker, figure, folder / PAIRS)
