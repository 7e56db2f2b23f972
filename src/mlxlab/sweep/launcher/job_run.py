"""Runs one composed job in this process, as Hydra's launchers do, and reports what came of it."""

from dataclasses import dataclass

from hydra.core.config_loader import ConfigLoader
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from mlxlab.config.check import register_resolvers
from mlxlab.config.hydra.compose import Callbacks
from mlxlab.config.issues import one_line
from mlxlab.errors import RunInterrupted, UserError
from mlxlab.redact import redact

_BUG, _CTRL_C = 70, 130


@dataclass(frozen=True)
class Report:
    """The value of the objective, or why there is none; `interrupted` by a signal, it may be continued."""

    value: float | None
    reason: str
    exit_code: int
    interrupted: bool


@dataclass(frozen=True)
class HydraJob:
    """A job as Hydra runs it: its composed config, and what is called with it."""

    config: DictConfig
    task: TaskFunction
    callbacks: Callbacks

    def run(self) -> Report:
        """Runs it in this process; whatever it raises is reported."""
        setup_globals()
        register_resolvers()
        context = HydraContext(config_loader=ConfigLoader, callbacks=self.callbacks)  # type: ignore[arg-type]  # unused
        try:
            return report_of(
                run_job(self.task, self.config, "hydra.sweep.dir", "hydra.sweep.subdir", context)
            )
        except BaseException as error:
            return _failure(error)


def report_of(job: JobReturn) -> Report:
    """What came of a job that Hydra ran."""
    value = job._return_value
    if job.status != JobStatus.COMPLETED:
        return _failure(value)
    if not isinstance(value, int | float):
        return _failure(TypeError(f"expected the value of the objective, got {value!r}"))
    return Report(float(value), "", 0, interrupted=False)


def _failure(error: BaseException) -> Report:
    """The report of a job that raised."""
    if isinstance(error, RunInterrupted):
        return Report(None, one_line(str(error), 300), error.exit_code, interrupted=True)
    if isinstance(error, KeyboardInterrupt):
        return Report(None, "interrupted", _CTRL_C, interrupted=True)
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        return Report(None, f"exited with code {code} before its end", code, interrupted=False)
    code = error.exit_code if isinstance(error, UserError) else _BUG
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return Report(None, redact(one_line(text, 300)), code, interrupted=False)
