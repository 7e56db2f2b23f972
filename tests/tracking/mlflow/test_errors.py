"""A store that is refused, silent, failing, locked, corrupt, deleted or old costs a run one line and no data."""

import socket
import sqlite3
import threading
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mlxlab.tracking.destination import Entry
from support.processes import passed, run, tiny_overrides
from support.tracking import (
    kill_uploader,
    log_run,
    make_journal,
    query_store,
    queue_of,
    runs_py,
    statuses,
    wait_until,
)


def run_to_the_end(project, **keys):
    """A run of 100 steps; returns its journal and the seconds that start and end took."""
    journal = make_journal(project, **keys)
    began = time.monotonic()
    journal.start({"a": 1}, {})
    started = time.monotonic() - began
    for step in range(1, 101):
        journal.log_metrics(step, {"loss": 1.0 / step})
    began = time.monotonic()
    journal.end("FINISHED")
    return journal, started, time.monotonic() - began


def assert_complete(project):
    assert statuses(project) == ["FINISHED"]
    rows = query_store(project, "select step, value from metrics order by step")
    assert rows == [(step, 1.0 / step) for step in range(1, 101)]


def assert_reported_once(text, journal):
    assert text.count("\n") == 1
    assert "nothing is lost" in text
    assert f"mlxlab runs sync {journal.folder}" in text


@pytest.fixture(name="failing")
def failing_server():
    """Answers `status`, 500, to everything and asks for a wait of a day; counts."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            server.asked += 1
            self.send_response(server.status)
            self.send_header("Retry-After", "99999")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked = 0
    server.status = 500
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_failing_server_is_neither_waited_for_nor_asked_often(
    project, failing, monkeypatch, capsys
):
    uri = f"http://127.0.0.1:{failing.server_port}"
    journal, started, _ = run_to_the_end(project, uri=uri, wait=2.0)
    assert started < 1.0
    assert_reported_once(capsys.readouterr().err, journal)
    asked = failing.asked
    failing.status = 429
    began = time.monotonic()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    done = run("list", script="runs")
    seconds = time.monotonic() - began
    assert (done.returncode, done.stderr.count("\n")) == (69, 1)
    assert seconds < 30
    assert failing.asked - asked <= 6 + 2 * seconds


@pytest.mark.parametrize("kind", ["refused", "silent", "unwritable"])
def test_a_store_that_cannot_be_used_costs_little_and_loses_nothing(project, capsys, kind):
    uri = "sqlite:////proc/no/mlflow.db"
    with socket.create_server(("127.0.0.1", 0)) as server:  # It never answers.
        if kind != "unwritable":
            uri = f"http://me:secret@127.0.0.1:{server.getsockname()[1]}"
        if kind == "refused":
            server.close()
        journal, started, ended = run_to_the_end(project, uri=uri, wait=1.0)
    assert started < 1.0
    assert ended < 2.0
    printed = capsys.readouterr().err
    assert_reported_once(printed, journal)
    assert "secret" not in printed
    if kind != "silent":
        named = f"uri={uri.replace('me:secret@', '')}"
        done = runs_py(project, "sync", str(journal.folder), named)
        assert (done.returncode, done.stderr.count("\n")) == (69, 1)
    for _ in range(2):
        store_uri = f"uri=sqlite:///{project}/mlruns/mlflow.db"
        done = passed(runs_py(project, "sync", str(journal.folder), store_uri))
        assert f"{journal.folder}: complete" in done.stdout
        assert_complete(project)


@pytest.mark.slow
def test_the_upload_waits_for_a_locked_database(project, capsys):
    run_to_the_end(project, name="first", experiment="other")
    with closing(sqlite3.connect(project / "mlruns" / "mlflow.db")) as database:
        database.execute("begin exclusive")
        journal = make_journal(project, wait=0.5)
        journal.start({}, {})
        slowest = 0.0
        for step in range(1, 101):
            began = time.monotonic()
            journal.log_metrics(step, {"x": 1.0})
            slowest = max(slowest, time.monotonic() - began)
        journal.end("FINISHED")
        assert_reported_once(capsys.readouterr().err, journal)
        database.rollback()
    assert slowest < 0.1
    query = "select count(*), count(distinct step) from metrics where key = 'x'"
    wait_until(lambda: query_store(project, query) == [(100, 100)])
    wait_until(lambda: statuses(project) == ["FINISHED"] * 2)


@pytest.mark.parametrize(
    "content", [b"this is no database" * 100, b"SQLite format 3\0" + bytes(4000)]
)
def test_a_corrupt_database_is_not_changed_and_the_run_can_be_uploaded_elsewhere(
    project, capsys, content
):
    path = project / "mlruns" / "mlflow.db"
    path.parent.mkdir()
    path.write_bytes(content)
    journal, _, _ = run_to_the_end(project)
    assert_reported_once(capsys.readouterr().err, journal)
    assert path.read_bytes() == content
    path.rename(path.with_name("corrupt.db"))
    passed(runs_py(project, "sync"))
    assert_complete(project)


@pytest.mark.slow
def test_a_database_deleted_during_a_run_is_created_again_with_all_records(project):
    journal = make_journal(project)
    journal.start({"a": 1}, {})
    for step in range(1, 51):
        journal.log_metrics(step, {"loss": 1.0 / step})
    wait_until(lambda: len(query_store(project, "select 1 from metrics")) == 50)
    for path in (project / "mlruns").glob("mlflow.db*"):
        path.unlink()
    for step in range(51, 101):
        journal.log_metrics(step, {"loss": 1.0 / step})
    journal.end("FINISHED")
    wait_until(lambda: statuses(project) == ["FINISHED"])
    assert_complete(project)
    assert query_store(project, "select key, value from params") == [("a", "1")]


@pytest.mark.slow
def test_sync_uploads_a_finished_run_that_the_store_has_lost(project):
    journal, _, _ = run_to_the_end(project)
    kill_uploader(queue_of(project).folder)
    for path in (project / "mlruns").glob("mlflow.db*"):
        path.unlink()
    passed(runs_py(project, "sync", str(journal.folder)))
    assert_complete(project)


@pytest.mark.slow
def test_a_database_of_another_mlflow_version_is_not_upgraded(project, capsys):
    run_to_the_end(project, name="before")
    path = project / "mlruns" / "mlflow.db"
    kill_uploader(queue_of(project).folder)
    with closing(sqlite3.connect(path)) as database:
        database.execute("update alembic_version set version_num = '0123456789ab'")
        database.commit()
        database.execute("pragma wal_checkpoint(truncate)")
    content = path.read_bytes()
    journal, _, _ = run_to_the_end(project, name="after")
    message = capsys.readouterr().err
    assert_reported_once(message, journal)
    assert "found version 0123456789ab" in message
    assert "db upgrade" in message
    assert path.read_bytes() == content


@pytest.mark.slow
def test_a_deleted_run_folder_does_not_block_other_runs(project):
    gone = make_journal(project, "gone")
    queue_of(project).add(Entry(gone.uid, gone.folder))
    run_to_the_end(project)
    assert_complete(project)
    wait_until(lambda: not queue_of(project).entries())


@pytest.mark.slow
def test_an_experiment_that_was_deleted_in_mlflow_is_reported_by_name(project, capsys):
    log_run(project)
    path = project / "mlruns" / "mlflow.db"
    with closing(sqlite3.connect(path, timeout=20)) as database, database:
        database.execute("update experiments set lifecycle_stage = 'deleted' where name = 'mlxlab'")
    kill_uploader(queue_of(project).folder)
    second = log_run(project, "b", wait=5.0)
    done = runs_py(project, "sync", str(second.folder))
    said = capsys.readouterr().err + done.stdout + done.stderr
    assert "experiment mlxlab was deleted in MLflow: restore it there" in said


PROXY = "http://user:hunter2@127.0.0.1:9"


@pytest.mark.slow
def test_the_password_of_a_proxy_reaches_no_file_and_no_output(tmp_path):
    settings = tiny_overrides("tracking=mlflow", "trainer.max_steps=2")
    store = ["tracking.uri=http://tracker.invalid:5000", "tracking.wait=2"]
    variables = {"http_proxy": PROXY, "HTTP_PROXY": PROXY, "HTTPS_PROXY": PROXY, "no_proxy": ""}
    variables |= {"HOME": str(tmp_path), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    trained = run(*settings, *store, f"hydra.run.dir={tmp_path}/run", **variables)
    assert trained.returncode == 0, trained.stderr
    sync = ["sync", f"{tmp_path}/run", "uri=http://tracker.invalid:5000"]
    synced = run(*sync, script="runs", **variables)
    assert synced.returncode != 0
    assert "Traceback" not in synced.stderr
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert any(b"tracker.invalid" in data for data in written)
    assert not any(b"hunter2" in data for data in written)
    assert "hunter2" not in trained.stdout + trained.stderr + synced.stdout + synced.stderr
