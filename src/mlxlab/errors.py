"""Errors that the user can correct: a one-line message and a documented exit code (sysexits).

The program exits with the `exit_code` of the error; tracebacks are only for bugs in mlxlab.
"""


class UserError(Exception):
    """An error that the user can correct. `str(error)` is printed: one line per issue, at most ten."""

    exit_code = 70


class ConfigError(UserError):
    """The configuration is invalid."""

    exit_code = 2


class DataError(UserError):
    """Input data is malformed; names file:line:column."""

    exit_code = 65


class InputNotFoundError(UserError):
    """A file or folder to read does not exist."""

    exit_code = 66


class ServiceUnavailableError(UserError):
    """A service or package that this run needs is unavailable."""

    exit_code = 69


class CannotCreateError(UserError):
    """A folder cannot be created, or another process is using it."""

    exit_code = 73


class WriteError(UserError):
    """A result could not be written."""

    exit_code = 74


class WorkerLostError(UserError):
    """Another process of this run exited; the run can be resumed."""

    exit_code = 75


class CheckpointUnavailableError(UserError):
    """No usable checkpoint."""

    exit_code = 76


class NotAllowedError(UserError):
    """Refused for safety: code that may not be built, a file that may not be read, a frozen key."""

    exit_code = 77


class DivergenceError(UserError):
    """Loss or gradients stayed non-finite for too long."""

    exit_code = 78


class RunInterrupted(UserError):
    """A signal asked the run to stop; `exit_code` is 128 + its number."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal
