"""What a sweep, its fork server and the processes of its jobs send each other: pickles, within one program."""

from dataclasses import dataclass

MAX_REPORT = 60_000  # bytes: fits the buffer of a socket, so that a process can end before it is read


@dataclass(frozen=True)
class Hello:
    """How the program was started, and what is imported before an order comes.

    Args:
        preload: modules that the server imports, none of which imports MLX.
        preload_later: the same, once the first job runs.
        modules: each process imports them, MLX too.
    """

    sys_path: list[str]
    argv: list[str]
    preload: list[str]
    preload_later: list[str]
    modules: list[str]


@dataclass(frozen=True)
class Order:
    """Start a job: `payload` is the pickle of a `JobOrder`. `more`: another job will follow."""

    payload: bytes
    more: bool


@dataclass(frozen=True)
class Kill:
    """Send a signal to the process group of a job, if it has not ended."""

    pid: int
    signal: int


@dataclass(frozen=True)
class Started:
    """The answer to an `Order`."""

    pid: int


@dataclass(frozen=True)
class Ended:
    """A process ended: exit code (negative for a signal), peak memory in bytes, and the JSON of a `Report` or ""."""

    pid: int
    exit_code: int
    peak_bytes: int
    report: str
