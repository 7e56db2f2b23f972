"""What can go wrong through no fault of ours: one line for the user, one documented exit code (sysexits).

Every fault ends the program with its `exit_code`; a traceback is kept for our own bugs. May be imported by anyone.
"""


class Fault(Exception):
    """A fault the user can mend. `str(fault)` is what is printed: one line a finding, at most ten."""

    exit_code = 70


class ConfigFault(Fault):
    """The configuration is not one that can run."""

    exit_code = 2


class DataFault(Fault):
    """Input data is malformed; names file:line:column."""

    exit_code = 65


class InputMissing(Fault):
    """A file or folder to read is not there."""

    exit_code = 66


class ServiceMissing(Fault):
    """A service or package that this run needs cannot be had."""

    exit_code = 69


class CannotCreate(Fault):
    """A folder cannot be created, or another process is using it."""

    exit_code = 73


class WriteFailed(Fault):
    """A result could not be written."""

    exit_code = 74


class PeerLost(Fault):
    """Another process of this run is gone; started again, the run goes on."""

    exit_code = 75


class NoCheckpoint(Fault):
    """There is no usable checkpoint where one is wanted."""

    exit_code = 76


class Refused(Fault):
    """Refused for safety: code that may not be built, a file that may not be read, a frozen key."""

    exit_code = 77


class Diverged(Fault):
    """Loss or gradients stayed non-finite for too long."""

    exit_code = 78


class Stopped(Fault):
    """A signal asked the run to stop; `exit_code` is 128 + its number."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal
