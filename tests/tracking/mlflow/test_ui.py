"""The user interface of MLflow shows a run of the store, on this machine only, and ends with everything it started."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from itertools import chain
from pathlib import Path

import psutil
import pytest

from support.commands import command
from support.processes import environment
from support.tracking import make_journal, wait_until


@contextlib.contextmanager
def user_interface(project: Path):
    """`mlxlab ui` and the line that it prints."""
    uri = f"uri=sqlite:///{project}/mlruns/mlflow.db"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlxlab", "ui", uri, f"port={port}"]
    process = subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        address = process.stdout.readline().split()[0]
        wait_until(lambda: is_served(address), seconds=300)
        yield process, address
    finally:
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C in a terminal
        process.communicate(timeout=60)


def is_served(address: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5):
        return True
    return False


def _post(address: str, **body: object) -> dict:
    request = urllib.request.Request(
        address, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def _is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != "zombie"


def _status(address: str, host: str) -> int:
    request = urllib.request.Request(f"{address}/", headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.slow
def test_the_user_interface_shows_a_run_of_the_store_and_allows_only_its_own_address(project):
    journal = make_journal(project)
    journal.start({"lr": 0.1}, {})
    journal.log_metrics(7, {"valid/loss": 0.25})
    journal.end("FINISHED")
    with user_interface(project) as (process, address):
        assert address.startswith("http://127.0.0.1:")
        children = psutil.Process(process.pid).children(recursive=True)
        connections = chain.from_iterable(child.net_connections() for child in children)
        listening = {each.laddr.ip for each in connections if each.status == "LISTEN"}
        assert listening == {"127.0.0.1"}
        with urllib.request.urlopen(address, timeout=30) as page:
            assert "<title>MLflow</title>" in page.read().decode()
        api = f"{address}/ajax-api/2.0/mlflow"  # what the page asks
        experiments = _post(f"{api}/experiments/search", max_results=10)["experiments"]
        [own] = [each["experiment_id"] for each in experiments if each["name"] == "mlxlab"]
        [run] = _post(f"{api}/runs/search", experiment_ids=[own])["runs"]
        port = address.rpartition(":")[2]
        for host in ("127.0.0.1", "localhost"):
            assert _status(address, f"{host}:{port}") == 200
        for host in ("192.168.0.1.evil.com", "10.evil.com", "172.16.evil.com", "evil.com"):
            assert _status(address, host) == _status(address, f"{host}:{port}") == 403
    wait_until(lambda: not any(map(_is_alive, children)))
    assert run["info"]["status"] == "FINISHED"
    [metric] = run["data"]["metrics"]
    assert (metric["key"], metric["value"], metric["step"]) == ("valid/loss", 0.25, 7)
    assert {"key": "lr", "value": "0.1"} in run["data"]["params"]


main = command("ui")


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["uri=sqlite:///nothing.db"], 69, "no store found"),
        (["uri=https://server"], 2, "https://server: a server"),
        (["port=0"], 2, "port=0"),
        (["nonsense=1"], 2, "nonsense"),
    ],
)
def test_what_cannot_be_served_is_one_line(tmp_path, monkeypatch, capsys, args, code, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mlxlab.cli.ui.project_root", lambda: tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    before = signal.getsignal(signal.SIGTERM)
    assert main(args) == code
    assert signal.getsignal(signal.SIGTERM) == before
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
    assert list(tmp_path.iterdir()) == []
