"""The user interface of MLflow, by the command of the README, shows a run of the store."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.processes import ROOT
from support.tracking import make_journal, project_fixture  # noqa: F401

pytest.importorskip("flask", reason="needs the extra ui")  # the server is in mlflow, not in mlflow-skinny


@contextmanager
def mlflow_ui(project: Path):
    """The address of the server."""
    [line] = [line for line in (ROOT / "README.md").read_text().splitlines() if "mlflow ui" in line]
    command = shlex.split(line.partition("&& ")[2])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = project / "ui.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, "--port", str(port), "--workers", "1"],
            cwd=project,
            stdout=output,
            stderr=output,
            start_new_session=True,  # the server has a worker
        )
        try:
            _wait(f"http://127.0.0.1:{port}/health", process, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(address: str, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + 300
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)


def _post(address: str, **body: object) -> dict:
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def test_the_user_interface_shows_a_run_of_the_store(project):
    journal = make_journal(project)
    journal.start({"lr": 0.1}, {})
    journal.log_metrics(7, {"valid/loss": 0.25})
    journal.end("FINISHED")
    with mlflow_ui(project) as address:
        with urllib.request.urlopen(address, timeout=30) as page:
            assert "<title>MLflow</title>" in page.read().decode()
        api = f"{address}/ajax-api/2.0/mlflow"  # what the page asks
        [experiment] = [
            found["experiment_id"]
            for found in _post(f"{api}/experiments/search", max_results=10)["experiments"]
            if found["name"] == "mlxlab"
        ]
        [run] = _post(f"{api}/runs/search", experiment_ids=[experiment])["runs"]
    assert run["info"]["status"] == "FINISHED"
    assert [(metric["key"], metric["value"], metric["step"]) for metric in run["data"]["metrics"]] == [
        ("valid/loss", 0.25, 7)
    ]
    assert {"key": "lr", "value": "0.1"} in run["data"]["params"]
