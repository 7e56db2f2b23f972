"""Starts a process for each group of checks, and collects what they find."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from tempfile import TemporaryFile
from typing import BinaryIO, NamedTuple

from mlxlab.cli.doctor.finding import Finding, finding
from mlxlab.config.issues import one_line
from mlxlab.config.paths import project_root
from mlxlab.detached import module_environment
from mlxlab.errors import DataError
from mlxlab.files.untrusted import parse_json
from mlxlab.tracking.mlflow.address import resolve

GROUPS = {  # module -> what it checks, for when it cannot
    "machine": "Python, memory, cores",
    "folders": "folders",
    "packages": "packages",
    "compute": "MLX, BLAS, native kernels",
    "store": "tracking store",
}
_VARIABLES = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
}  # of a tracking server
MAX_OUTPUT = 2**16  # bytes that are read


class _Process(NamedTuple):
    process: subprocess.Popen[bytes]
    output: BinaryIO
    errors: BinaryIO


def examine(timeout: float) -> Iterator[Finding]:
    """The findings of all groups, in their order; they run at the same time, each for at most `timeout` seconds."""
    deadline = time.monotonic() + timeout
    processes = {group: _start(group) for group in GROUPS}
    try:
        for group, started in processes.items():
            yield from _findings(group, started, deadline, timeout)
    finally:
        for started in processes.values():
            _kill(started.process)
            started.output.close()
            started.errors.close()


def _start(group: str) -> _Process:
    output, errors = TemporaryFile(), TemporaryFile()  # noqa: SIM115
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "mlxlab.cli.doctor.probe", group],
        # `module_environment` limits threads, as for a process that computes nothing
        env=_VARIABLES
        | module_environment()
        | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "")},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
        start_new_session=True,
    )
    return _Process(process, output, errors)


def _findings(group: str, started: _Process, deadline: float, timeout: float) -> Iterator[Finding]:
    code: int | None = None
    with suppress(subprocess.TimeoutExpired):
        code = started.process.wait(max(deadline - time.monotonic(), 0.01))
    _kill(started.process)
    for line in _text(started.output).splitlines():
        with suppress(DataError):
            yield parse_json(line, Finding, group)
    if code is None:
        remedy = "another process may hold what it waits for, or timeout= is too short"
        if (
            group == "store" and resolve(None, None, project_root()).database is not None
        ):  # slow, not broken
            yield finding(
                GROUPS[group],
                f"no answer in {timeout:g} s",
                "note",
                f"repeat, or timeout={5 * timeout:g}",
            )
            return
        yield finding(GROUPS[group], f"took more than {timeout:g} s", "error", remedy)
    elif code != 0:
        end = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        message = (_text(started.errors).strip().splitlines() or [""])[-1]
        value = ": ".join(filter(None, [f"the check ended with {end}", one_line(message, 200)]))
        yield finding(GROUPS[group], value, "error", "install mlxlab again, in a new environment")


def _text(file: BinaryIO) -> str:
    file.seek(max(0, file.seek(0, os.SEEK_END) - MAX_OUTPUT))
    return file.read(MAX_OUTPUT).decode("utf-8", "replace")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Ends the process and its children."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
