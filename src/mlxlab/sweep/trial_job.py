"""Runs one trial as a job of Hydra's launcher, and reads its result."""

import math
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from omegaconf.errors import OmegaConfBaseException

from mlxlab.config.issues import one_line
from mlxlab.errors import DataError, RunInterrupted, UserError
from mlxlab.experiment.run_metrics import FILE, RunMetrics
from mlxlab.files.untrusted import read_json
from mlxlab.redact import redact
from mlxlab.sweep.trials import TrialResult


def run_trial(launcher: Launcher, overrides: list[str], number: int, objectives: list[str]) -> TrialResult:
    """Runs job `number`; whatever it raises is its result.

    Raises:
        RunInterrupted: a signal stopped it.
        OSError: its folder cannot be made.
    """
    try:
        [job] = launcher.launch([overrides], initial_job_idx=number)
        if job.status != JobStatus.COMPLETED:
            raise job._return_value
        values = _values(job, objectives)
    except (RunInterrupted, OSError):
        raise
    except (UserError, HydraException, OmegaConfBaseException) as error:
        return TrialResult([], _reason(str(error)))
    except Exception as error:  # a bug in the code of one trial
        return TrialResult([], _reason(f"{type(error).__name__}: {error}"))
    for name, value in zip(objectives, values, strict=True):
        if not math.isfinite(value):
            return TrialResult([], f"{name} is {value}")
    return TrialResult(values)


def resumed(overrides: list[str]) -> list[str]:
    """Overrides that continue from the latest checkpoint of the job's folder, if there is one."""
    is_set = any(text.lstrip("+").startswith("resume=") for text in overrides)
    return overrides if is_set else [*overrides, "resume=auto"]


def _values(job: JobReturn, objectives: list[str]) -> list[float]:
    assert job.cfg is not None
    assert job.hydra_cfg is not None
    if [job.cfg.objective] == objectives:
        return [float(job._return_value)]
    path = Path(job.hydra_cfg.hydra.runtime.output_dir) / FILE
    metrics = read_json(path, RunMetrics)["metrics"]
    if missing := [name for name in objectives if metrics.get(name) is None]:
        raise DataError(f"{path}: no value of {', '.join(missing)}; it has {', '.join(metrics)}")
    return [float(metrics[name] or 0.0) for name in objectives]


def _reason(text: str) -> str:
    return redact(one_line(text, 300)) or "failed without a message"
