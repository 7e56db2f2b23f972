"""`mlxlab runs doctor`: closes runs whose process is dead, and sends what was not sent."""

import json
import os
import shutil
import sqlite3
from contextlib import closing

import pytest

from mlxlab.cli import runs
from mlxlab.tracking.mlflow import queue
from support.tracking import (
    make_journal,
    project_fixture,  # noqa: F401
    query_store,
    upload,
)

# Of MLflow, at its import in this process.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(name="running")
def running_run(project, monkeypatch):
    """An open journal, uploaded without its end; no syncer runs."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/mlruns/mlflow.db")
    monkeypatch.setattr(queue, "start_syncer", lambda address: False)
    journal = make_journal(project, "a", wait=0.0)
    journal.start({}, {})
    journal.log_metrics(1, {"x": 1.0})
    upload(journal)
    return journal


def doctor(capsys, *args):
    """The rows of its table by name of the run."""
    assert runs.main(["doctor", *args, "--json"]) == 0
    return {row["name"]: row for row in json.loads(capsys.readouterr().out)}


def set_tag(project, key, value):
    with closing(sqlite3.connect(project / "mlruns" / "mlflow.db")) as database:
        database.execute("update tags set value = ? where key = ?", (value, key))
        database.commit()


def statuses(project):
    return query_store(project, "select status from runs")


def test_a_run_whose_process_lives_stays_running(running, project, capsys):
    assert doctor(capsys)["a"]["state"] == "alive"
    shutil.rmtree(running.folder)
    assert doctor(capsys)["a"] | {"run": ""} == {
        "run": "",
        "name": "a",
        "state": "alive",
        "reason": f"process {os.getpid()} is alive",
        "action": "none",
    }
    assert statuses(project) == [("RUNNING",)]


def test_a_dead_run_without_journal_is_closed_at_its_last_metric(running, project, capsys):
    shutil.rmtree(running.folder)
    set_tag(project, "host", "another")
    assert doctor(capsys)["a"]["reason"] == "started on another"
    assert statuses(project) == [("RUNNING",)]
    set_tag(project, "host", os.uname().nodename)
    set_tag(
        project, "process_start", "1.00"
    )  # the number of a process that has ended belongs to a new one
    assert doctor(capsys, "dry_run=true")["a"]["action"] == "set to KILLED"
    assert statuses(project) == [("RUNNING",)]
    assert doctor(capsys)["a"]["state"] == "dead"
    assert query_store(
        project, "select status, end_time = (select timestamp from metrics) from runs"
    ) == [("KILLED", 1)]
    assert doctor(capsys) == {}


def test_the_journal_of_a_dead_run_is_sent(running, project, capsys):
    running.log_metrics(2, {"x": 2.0})
    running._writer.close()
    queue.unregister(running.mlflow.address.queue, running.uid)
    assert doctor(capsys)["a"]["action"] == "upload its journal"
    assert statuses(project) == [("KILLED",)]
    assert query_store(project, "select max(step) from metrics") == [(2,)]


def test_journals_below_a_folder_are_sent_unless_they_are_of_another_store(
    running, project, capsys
):
    running.end("FINISHED")
    other = make_journal(project, "other", uri=f"sqlite:///{project}/other.db", wait=0.0)
    other.start({}, {})
    other.end("FINISHED")
    queue.unregister(running.mlflow.address.queue, running.uid)
    folder = str(project / "outputs")
    rows = doctor(capsys, folder)
    assert "recorded for" in rows[str(other.folder)]["reason"]
    assert rows[str(other.folder)]["action"] == "none"
    assert statuses(project) == [("FINISHED",)]
    assert list(doctor(capsys, folder)) == [str(other.folder)]


def test_a_missing_folder_or_store_is_one_line(project, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/mlruns/mlflow.db")
    assert runs.main(["doctor", str(project / "no")]) == 66
    assert capsys.readouterr().err.count("\n") == 1
    assert runs.main(["doctor"]) == 0
    assert not (project / "mlruns" / "mlflow.db").exists()
