"""What a sweep, its fork server and the processes of its jobs send each other: pickles, within one program."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Hello:
    """How the program was started, and what is imported before an order comes.

    Args:
        preload: modules that the server imports, none of which imports MLX.
        preload_later: the same, once the first job runs, if each process is to run one job.
        modules: each process imports them, MLX too.
        jobs_per_process: how many jobs a process may run, one after the other; null is no limit.
    """

    sys_path: list[str]
    argv: list[str]
    preload: list[str]
    preload_later: list[str]
    modules: list[str]
    jobs_per_process: int | None


@dataclass(frozen=True)
class Order:
    """Start a job: `payload` is the pickle of a `JobOrder`. `more`: another job will follow."""

    number: int
    payload: bytes
    more: bool


@dataclass(frozen=True)
class Kill:
    """Send a signal to the process group of an order's job, if it has not ended."""

    number: int
    signal: int


@dataclass(frozen=True)
class Started:
    """The answer to an `Order`."""

    number: int
    pid: int


@dataclass(frozen=True)
class Ended:
    """A job ended: exit code (negative for a signal), peak memory in bytes, and the JSON of a `Report` or ""."""

    number: int
    exit_code: int
    peak_bytes: int
    report: str


@dataclass(frozen=True)
class Reported:
    """Of a process: what came of its job, as JSON, and the peak memory."""

    report: str
    peak_bytes: int


@dataclass(frozen=True)
class Idle:
    """Of a process, after `Reported`: it can run another job."""
