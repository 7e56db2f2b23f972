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
from pathlib import Path

import psutil

from support.processes import environment
from support.tracking import make_journal, project_fixture, wait_until  # noqa: F401


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


def test_the_user_interface_shows_a_run_of_the_store(project):
    journal = make_journal(project)
    journal.start({"lr": 0.1}, {})
    journal.log_metrics(7, {"valid/loss": 0.25})
    journal.end("FINISHED")
    with user_interface(project) as (process, address):
        assert address.startswith("http://127.0.0.1:")
        children = psutil.Process(process.pid).children(recursive=True)
        sockets = [
            each.laddr.ip
            for child in children
            for each in child.net_connections()
            if each.status == "LISTEN"
        ]
        assert set(sockets) == {"127.0.0.1"}
        with urllib.request.urlopen(address, timeout=30) as page:
            assert "<title>MLflow</title>" in page.read().decode()
        api = f"{address}/ajax-api/2.0/mlflow"  # what the page asks
        [experiment] = [
            found["experiment_id"]
            for found in _post(f"{api}/experiments/search", max_results=10)["experiments"]
            if found["name"] == "mlxlab"
        ]
        [run] = _post(f"{api}/runs/search", experiment_ids=[experiment])["runs"]
    wait_until(
        lambda: not any(child.is_running() and child.status() != "zombie" for child in children)
    )
    assert run["info"]["status"] == "FINISHED"
    assert [
        (metric["key"], metric["value"], metric["step"]) for metric in run["data"]["metrics"]
    ] == [("valid/loss", 0.25, 7)]
    assert {"key": "lr", "value": "0.1"} in run["data"]["params"]


def test_only_the_own_address_is_an_allowed_host(project):
    journal = make_journal(project)
    journal.start({}, {})
    journal.end("FINISHED")

    def status_for(host: str) -> int:
        request = urllib.request.Request(f"{address}/", headers={"Host": host})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    with user_interface(project) as (_, address):
        port = address.rpartition(":")[2]
        own = (f"127.0.0.1:{port}", f"localhost:{port}")
        foreign = ("192.168.0.1.evil.com", "10.evil.com", "172.16.evil.com", "evil.com")
        assert [status_for(host) for host in own] == [200, 200]
        statuses = [status_for(f"{host}{end}") for host in foreign for end in ("", f":{port}")]
        assert statuses == [403] * len(statuses)
