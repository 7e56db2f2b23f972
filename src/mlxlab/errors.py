"""What can go wrong through no fault of ours: one line for the user, one documented exit code (sysexits).

Every fault ends the program with its `exit_code`; a traceback is kept for our own bugs. May be imported by anyone.
"""


class UserError(Exception):
    """A fault the user can mend. `str(fault)` is what is printed: one line a finding, at most ten."""

    exit_code = 70


class ConfigError(UserError):
    """The configuration is not one that can run."""

    exit_code = 2


class DataError(UserError):
    """Input data is malformed; names file:line:column."""

    exit_code = 65


class InputNotFoundError(UserError):
    """A file or folder to read is not there."""

    exit_code = 66


class ServiceUnavailableError(UserError):
    """A service or package that this run needs cannot be had."""

    exit_code = 69


class CannotCreateError(UserError):
    """A folder cannot be created, or another process is using it."""

    exit_code = 73


class WriteError(UserError):
    """A result could not be written."""

    exit_code = 74


class WorkerLostError(UserError):
    """Another process of this run is gone; started again, the run goes on."""

    exit_code = 75


class CheckpointUnavailableError(UserError):
    """There is no usable checkpoint where one is expected."""

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
