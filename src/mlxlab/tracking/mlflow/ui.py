"""The user interface of MLflow on this machine: a server in processes of its own, which end with the block."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Annotated

from annotated_types import Ge, Le

from mlxlab.errors import ConfigError, ServiceUnavailableError
from mlxlab.program import install_command
from mlxlab.tracking.mlflow.address import Address
from mlxlab.tracking.mlflow.relocate import repair_locations
from mlxlab.tracking.mlflow.store import SETTINGS, check_exists

HOST = "127.0.0.1"
START_SECONDS = 300.0
STOP_SECONDS = 5.0

Port = Annotated[int, Ge(1), Le(65535)]


@contextmanager
def serve_ui(address: Address, port: int | None) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """Serves a store on the loopback interface; gives the URL, and the process of the server.

    Args:
        port: None takes a free one.

    Raises:
        ConfigError: the port is in use, or the store is a server, which has an interface of its own.
        ServiceUnavailableError: there is no store, the extra `ui` is not installed, or the server does not start.
    """
    if address.uri.startswith(("http", "databricks")):
        raise ConfigError(f"{address.shown}: a server, which has a user interface of its own")
    check_exists(address)
    if find_spec("flask") is None:
        raise ServiceUnavailableError(
            f"the user interface needs the package mlflow: {install_command('ui')}"
        )
    repair_locations(address)
    port = _free_port(port)
    variables = SETTINGS | {
        "MLFLOW_BACKEND_STORE_URI": address.uri,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    if address.artifacts:
        variables["MLFLOW_DEFAULT_ARTIFACT_ROOT"] = address.artifacts
    # MLflow's own patterns, such as 192.168.*, also match names that an attacker registers.
    hosts = {"MLFLOW_SERVER_ALLOWED_HOSTS": f"{HOST}:{port},localhost:{port}"}
    command = [sys.executable, "-P", "-m", "mlflow", "ui", "--host", HOST, "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--workers", "1"],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno(),
        env=hosts | os.environ | variables,
        start_new_session=True,  # The server has workers, and Ctrl-C reaches only this process.
    )
    try:
        _wait(process, port)
        yield f"http://{HOST}:{port}", process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run_page(url: str, experiment_id: str, run_id: str) -> str:
    return f"{url}/#/experiments/{experiment_id}/runs/{run_id}"


def _free_port(port: int | None) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port or 0))
        except OSError as error:
            raise ConfigError(f"port={port}: {error.strerror}") from None
        return int(probe.getsockname()[1])


def _wait(process: "subprocess.Popen[bytes]", port: int) -> None:
    """Waits until the server answers."""
    until = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < until:
        with suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection(HOST, port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.2)
    raise ServiceUnavailableError(f"the server does not start (exit code {process.poll()})")
