"""Errors that the user can correct, each with its exit code (sysexits); tracebacks are only for bugs in mlxlab."""


class UserError(Exception):
    """An error that the user can correct. `str(error)` is printed: one line per issue, at most ten."""

    exit_code = 70

    def __init_subclass__(cls, exit_code: int | None = None) -> None:
        cls.exit_code = exit_code or cls.exit_code

    def _render_traceback_(self) -> list[str]:
        """What IPython and Jupyter print instead of a traceback."""
        return [f"{type(self).__name__}: {self}", *getattr(self, "__notes__", ())]


class ConfigError(UserError, exit_code=2):
    """The configuration is invalid."""


class DataError(UserError, exit_code=65):
    """Input data is malformed; the message names file:line:column."""


class InputNotFoundError(UserError, exit_code=66):
    """A file or folder to read does not exist."""


class ServiceUnavailableError(UserError, exit_code=69):
    """A required service or package is unavailable, or `doctor` found an error."""


class CannotCreateError(UserError, exit_code=73):
    """A folder cannot be created, or another process is using it."""


class WriteError(UserError, exit_code=74):
    """A result could not be written."""


class WorkerLostError(UserError, exit_code=75):
    """Another process of this run exited or hangs; the run is saved, and `resume=auto` continues it. Or the launcher of
    a sweep gave up; the same command continues the sweep.
    """


class CheckpointUnavailableError(UserError, exit_code=76):
    """There is no usable checkpoint, or `verify` or `reproduce` found a difference."""


class NotAllowedError(UserError, exit_code=77):
    """Not allowed: code that may not be built, a file that may not be read, a key that may not change on resume, data
    or kernels that changed since the checkpoint.
    """


class DivergenceError(UserError, exit_code=78):
    """Loss or gradients stayed non-finite for `trainer.max_nonfinite_steps` steps in a row, after all rollbacks, or in
    every step of a run.
    """


class RunInterrupted(UserError):
    """A signal asked the run to stop; `exit_code` is 128 + its number."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal


class RunPruned(RunInterrupted):
    """A sweep paused or pruned the run, which is saved; `objective` is its best value so far."""

    def __init__(self, message: str, objective: float) -> None:
        super().__init__(message, 0)
        self.exit_code = 0
        self.objective = objective


def hides_interrupt(error: BaseException | None) -> bool:
    """Whether an error replaced a Ctrl-C: OmegaConf fails to clean up a list that was interrupted while it grew."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None
