"""The trials of a search as jobs of the sweep's launcher, and their results."""

import json
import logging
import math
from pathlib import Path

from mlxlab.config.hydra.search_space import override_texts
from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.experiment.run_metrics import FILE, RunMetrics
from mlxlab.files.untrusted import read_json
from mlxlab.sweep.job_seconds import seconds_of_attempts
from mlxlab.sweep.launcher.jobs import JobResult, Jobs, resumed
from mlxlab.sweep.pruning.settings import Pruning
from mlxlab.sweep.search.trial import Trial, TrialResult
from mlxlab.training.stop_rule import VARIABLE, StopRule

logger = logging.getLogger(__name__)


class TrialLauncher:
    """Starts trials by a launcher; whatever becomes of one is its result.

    Args:
        folder: of the sweep.
        overrides: of every trial.
        objective: that of the config, whose value a job returns; `objectives` are those of the search.
        num_trials: of the search, for messages.
    """

    def __init__(
        self,
        jobs: Jobs,
        folder: Path,
        overrides: list[str],
        pruning: Pruning,
        objective: str,
        objectives: list[str],
        num_trials: int,
    ) -> None:
        self.jobs, self.folder, self.overrides, self.pruning = jobs, folder, overrides, pruning
        self.objectives, self.num_trials = objectives, num_trials
        self.running = dict[int, Path]()  # folders of trials
        self.returns_all = [objective] == objectives and not pruning.is_active

    @property
    def num_free(self) -> int:
        return self.jobs.num_free

    @property
    def stop_signal(self) -> int:
        return self.jobs.stop_signal

    def start(self, trial: Trial, *, continues: bool, more: bool) -> None:
        point = override_texts(trial.point)
        until = "" if trial.budget is None else f", until {trial.budget} {self.pruning.unit}"
        begins = "continues" if continues else "starts"
        order = f"{trial.number + 1} of {self.num_trials}"
        logger.info(f"trial {trial.number} ({' '.join(point)}): {begins}, {order}{until}")
        texts, own = [*self.overrides, *point], self.folder / str(trial.number)
        self.running[trial.number] = own
        if continues and own.is_dir():
            texts = resumed(texts, own)
        self.jobs.start([*texts, *stopping(self.pruning.rule(trial))], trial.number, more=more)

    def wait(self) -> tuple[int, TrialResult | None]:
        job = self.jobs.wait()
        self.running.pop(job.number, None)
        result = None if job.state == "stopped" else self._result(job)
        outcome = job.reason if result is None else self._describe(result)
        logger.info(f"trial {job.number}: {outcome} after {job.seconds:.1f} s")
        if result is not None:
            result = result._replace(seconds=seconds_of_attempts(job.folder))
        return job.number, result

    def _describe(self, result: TrialResult) -> str:
        values = ", ".join(
            f"{name} {value:.6g}"
            for name, value in zip(self.objectives, result.values, strict=False)
        )
        return "; ".join(filter(None, [values, result.reason]))

    def _result(self, job: JobResult) -> TrialResult:
        if job.value is None:
            return TrialResult([], job.reason)
        if self.returns_all:
            return TrialResult([job.value])
        try:
            result = self._read(job.folder / FILE)
        except (DataError, InputNotFoundError) as error:
            return TrialResult([], str(error))
        for name, value in zip(self.objectives, result.values, strict=True):
            if not math.isfinite(value):
                return TrialResult([], f"{name} is {value}")
        return result

    def _read(self, path: Path) -> TrialResult:
        run = read_json(path, RunMetrics)
        if missing := [name for name in self.objectives if run["metrics"].get(name) is None]:
            raise DataError(
                f"{path}: no value of {', '.join(missing)}; it has {', '.join(run['metrics'])}"
            )
        values = [float(run["metrics"][name] or 0.0) for name in self.objectives]
        if not self.pruning.is_active:
            return TrialResult(values)
        evaluations = [value for _, value in run.get("evaluations", [])]
        return TrialResult(
            values, run.get("reason", ""), run.get("state", "finished"), run["steps"], evaluations
        )


def stopping(rule: StopRule | None) -> list[str]:
    """Overrides that put a rule into the environment of the job."""
    return [] if rule is None else [f"++hydra.job.env_set.{VARIABLE}='{json.dumps(rule)}'"]
