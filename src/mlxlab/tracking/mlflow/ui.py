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
from pathlib import Path
from typing import Annotated, TypedDict

from annotated_types import Ge, Le

from mlxlab.errors import ConfigError, DataError, InputNotFoundError, ServiceUnavailableError
from mlxlab.files.atomic import write_json
from mlxlab.files.untrusted import read_json
from mlxlab.program import install_command
from mlxlab.tracking.mlflow import queue
from mlxlab.tracking.mlflow.address import Address
from mlxlab.tracking.mlflow.client import SETTINGS
from mlxlab.tracking.mlflow.errors import printable
from mlxlab.tracking.mlflow.relocate import repair_locations

HOST = "127.0.0.1"
FILE, LOCK, LOG = "ui.json", "ui.lock", "ui.log"  # in the queue of the store
START_SECONDS = 300.0
STOP_SECONDS = 5.0

Port = Annotated[int, Ge(1), Le(65535)]


class UiState(TypedDict):
    port: Port


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
    if address.database is not None and not address.database.is_file():
        raise ServiceUnavailableError(
            f"{address.shown}: no store found; a run with tracking=mlflow creates it"
        )
    if find_spec("flask") is None:
        raise ServiceUnavailableError(
            f"the user interface needs the package mlflow: {install_command('ui')}"
        )
    repair_locations(address)
    port = _free_port(port)
    with queue.lock(address.queue / LOCK) as is_only_one:
        if not is_only_one:
            raise ConfigError(
                f"{address.shown}: its user interface is running: {running_ui(address)}"
            )
        process = _start(address, port)
        try:
            _wait(process, port, address.queue / LOG)
            write_json(address.queue / FILE, {"port": port})
            yield f"http://{HOST}:{port}", process
        finally:
            (address.queue / FILE).unlink(missing_ok=True)
            _stop(process)


def running_ui(address: Address) -> str | None:
    """The URL of the user interface of a store, if `serve_ui` is running it, or if the store is a server."""
    if address.uri.startswith("http"):
        return address.shown.rstrip("/")
    if not address.queue.is_dir():
        return None
    with queue.lock(address.queue / LOCK) as is_free:
        if is_free:
            return None
    try:
        return f"http://{HOST}:{read_json(address.queue / FILE, UiState)['port']}"
    except (InputNotFoundError, DataError):
        return None


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


def _start(address: Address, port: int) -> "subprocess.Popen[bytes]":
    """In a process group of its own: the server has workers, and Ctrl-C reaches only this process."""
    variables = SETTINGS | {
        "MLFLOW_BACKEND_STORE_URI": address.uri,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    if address.artifacts:
        variables["MLFLOW_DEFAULT_ARTIFACT_ROOT"] = address.artifacts
    # MLflow's own patterns, such as 192.168.*, also match names that an attacker registers.
    hosts = {"MLFLOW_SERVER_ALLOWED_HOSTS": f"{HOST}:{port},localhost:{port}"}
    command = [
        sys.executable,
        "-P",
        "-m",
        "mlflow",
        "ui",
        "--host",
        HOST,
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    with (address.queue / LOG).open("wb") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=hosts | os.environ | variables,
            start_new_session=True,
        )


def _wait(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while not _answers(port):
        if process.poll() is not None or time.monotonic() > until:
            lines = log.read_bytes()[-4000:].decode(errors="replace").strip().splitlines()
            raise ServiceUnavailableError(
                f"the user interface does not start: {printable(lines[-1] if lines else '')}"
            )
        time.sleep(0.2)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Ends the server and its workers."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
