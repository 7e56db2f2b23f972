"""Journals reach a real store through a real second process: everything, exactly once, with the right end."""

import os
import signal

import pytest

from mlxlab.tracking import queue, upload
from mlxlab.tracking.destination import Entry
from mlxlab.tracking.queue import LOCK
from mlxlab.tracking.records import utf8
from support.tracking import (
    kill_uploader,
    log_run,
    make_journal,
    query_store,
    queue_of,
    runs_py,
    start_trainer,
    statuses,
    uploader_of,
    wait_until,
)

METRICS = "select key, step, value from metrics order by key, step"


def count_rows(project):
    return len(query_store(project, "select 1 from metrics"))


def test_a_finished_run_is_in_the_store_when_end_returns(project, capsys):
    journal = make_journal(project)
    params = {"model": {"hidden_size": 8, "kernel_sizes": [2, 3]}, "none": None}
    journal.start(params, {"note": "x"}, name="first")
    for step in range(1, 1101):  # more rows than a batch takes
        journal.log_metrics(step, {"train/loss": 1 / step})
    journal.log_metrics(1100, {"valid/nan": float("nan"), "valid/inf": float("inf")})
    journal.log_dataset("titanic", "0123abcd", "titanic.csv")
    (journal.folder / "plots").mkdir()
    (journal.folder / "plots" / "curve.txt").write_text("a curve")
    (journal.folder / "summary.md").write_text("a summary")
    journal.log_artifact(journal.folder / "plots", "plots")
    journal.log_artifact(journal.folder / "summary.md")
    journal.log_artifact(journal.folder / "never.png")
    journal.end("FINISHED")
    assert capsys.readouterr().err == ""
    assert query_store(project, "select name, status, end_time >= start_time from runs") == [
        ("first", "FINISHED", 1)
    ]
    query = "select count(*), count(distinct step), sum(step) from metrics"
    rows = query_store(project, f"{query} where key = 'train/loss'")
    assert rows == [(1100, 1100, 605550)]
    query = "select is_nan, value > 1e308 from latest_metrics where key like 'valid/%' order by key"
    assert query_store(project, query) == [(0, 1), (1, 0)]
    params = dict(query_store(project, "select key, value from params"))
    sizes = {"model.hidden_size": "8", "model.kernel_sizes.0": "2", "model.kernel_sizes.1": "3"}
    assert params == sizes | {"none": "None"}
    tags = dict(query_store(project, "select key, value from tags"))
    assert (tags["note"], tags["mlxlab.uid"]) == ("x", journal.uid)
    assert {"mlflow.user", "mlflow.source.name", "mlflow.source.git.dirty"} <= tags.keys()
    assert len([key for key in tags if not key.startswith("mlflow.")]) <= 10
    assert "never.png" in tags["mlxlab.missing"]
    assert query_store(project, "select name, digest from datasets") == [("titanic", "0123abcd")]
    files = [path for path in (project / "mlruns" / "artifacts").rglob("*.*") if path.is_file()]
    copied = {path.name: path.read_text() for path in files}
    assert copied == {"curve.txt": "a curve", "summary.md": "a summary"}
    kinds = query_store(project, "select key, value from experiment_tags")
    assert ("mlflow.experimentKind", "custom_model_development") in kinds


@pytest.mark.slow
def test_six_processes_can_create_a_store_at_once(project):
    trainers = [start_trainer(project, f"run{i}", 50) for i in range(6)]
    outcomes = [(*trainer.communicate(timeout=90), trainer.returncode) for trainer in trainers]
    assert outcomes == [("logged\n", "", 0)] * 6
    assert statuses(project) == ["FINISHED"] * 6
    assert query_store(project, "select count(*) from metrics") == [(6 * 50 * 2,)]
    assert query_store(project, "select count(*) from experiments") == [(2,)]


@pytest.mark.slow
def test_every_line_is_uploaded_once_although_the_uploader_is_killed(project):
    journal = make_journal(project)
    journal.start({"a": 1}, {})
    for step in range(1, 5001):
        journal.log_metrics(step, {"x": step / 7})
    kills = 0
    for _ in range(3):
        wait_until(lambda: queue_of(project).is_locked(LOCK))
        seen = count_rows(project)
        wait_until(lambda seen=seen: count_rows(project) > seen or seen == 5000)
        kills += kill_uploader(queue_of(project).folder)
        queue.start_uploading(journal.queues[0])
    journal.end("FINISHED")
    assert kills >= 2
    assert query_store(project, METRICS) == [("x", step, step / 7) for step in range(1, 5001)]
    assert query_store(project, "select count(*), max(status) from runs") == [(1, "FINISHED")]


def test_a_resumed_run_continues_its_mlflow_run_with_every_step_once(project):
    first = make_journal(project)
    first.start({"lr": 0.1, "width": 8}, {})
    for step in range(1, 11):
        first.log_metrics(step, {"loss": 100.0 - step, "late" if step > 8 else "early": 1.0})
    wait_until(lambda: count_rows(project) == 20)
    first._writer.close()  # what kill -9 leaves
    wait_until(lambda: statuses(project) == ["KILLED"])
    again = make_journal(project)
    again.start({"lr": 0.2, "width": 8, "new": 1}, {}, resumed=True)
    again.truncate_after(6)
    for step in range(7, 13):
        again.log_metrics(step, {"loss": 100.0 - step})
    again.end("FINISHED")
    assert statuses(project) == ["FINISHED"]
    losses = [row for row in query_store(project, METRICS) if row[0] == "loss"]
    assert losses == [("loss", step, 100.0 - step) for step in range(1, 13)]
    latest = "select step, value from latest_metrics where key = 'loss'"
    assert query_store(project, latest) == [(12, 88.0)]
    params = dict(query_store(project, "select key, value from params"))
    assert params == {"lr": "0.1", "width": "8", "new": "1"}


@pytest.mark.slow
def test_the_environment_names_an_experiment_and_a_run_to_continue(project, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    log_run(project, "first")
    query = "select run_uuid, e.name from runs join experiments e using (experiment_id)"
    [(run_id, experiment)] = query_store(project, query)
    assert experiment == "mine"
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    log_run(project, "second", experiment="other")
    assert query_store(project, "select run_uuid, name from runs") == [(run_id, "first")]
    assert count_rows(project) == 1


def test_all_records_of_a_killed_trainer_are_uploaded_and_a_second_run_leaves_them(project):
    """The uploader inherits no signals and no signal mask of the trainer."""
    masked = "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})"
    trainer = start_trainer(project, "a", 3000, "hang", prepare=f"import signal; {masked}")
    assert trainer.stdout.readline() == "logged\n"
    os.killpg(trainer.pid, signal.SIGKILL)
    trainer.communicate()
    wait_until(lambda: statuses(project) == ["KILLED"])
    query = "select key, count(*), count(distinct step) from metrics group by key order by key"
    assert query_store(project, query) == [("lr", 3000, 3000), ("train/loss", 3000, 3000)]
    wait_until(lambda: not queue_of(project).entries())
    uploader_of(queue_of(project).folder).terminate()
    wait_until(lambda: not queue_of(project).is_locked(LOCK), 5.0)
    log_run(project, status="FAILED")
    wait_until(lambda: statuses(project) == ["KILLED", "FAILED"])
    assert query_store(project, query) == [
        ("lr", 3000, 3000),
        ("train/loss", 3000, 3000),
        ("x", 1, 1),
    ]


def test_a_run_that_is_added_while_the_process_ends_is_uploaded(project, monkeypatch):
    waiting = queue_of(project)
    rounds = []

    def serve(uploader):
        uploader.entries = waiting.entries()
        rounds.append(uploader.entries)
        if len(rounds) == 1:  # after the last look, before the lock is given back
            waiting.add(Entry("0" * 32, project / "a"))
            assert not queue.start_uploading(waiting)

    waiting.folder.mkdir(parents=True)
    monkeypatch.chdir(project)
    monkeypatch.setattr(upload.Uploader, "serve", serve)
    monkeypatch.setattr(os, "nice", lambda _: 0)
    monkeypatch.setenv(queue.VARIABLE, queue.dump(waiting))
    upload.main()
    assert rounds == [[], [Entry("0" * 32, project / "a")]]


@pytest.mark.parametrize(
    ("project_name", "name"),
    [("a?b=c%20", os.fsdecode(b"run-\xff")), pytest.param(".", "a?b=c%20", marks=pytest.mark.slow)],
)
def test_run_and_project_folders_may_have_any_name(project, project_name, name, capsys):
    project = project / project_name
    journal = make_journal(project, name)
    journal.start({"name": name}, {"overrides": str(journal.folder)})
    journal.log_metrics(1, {"x": 1.0})
    (journal.folder / "plot.txt").write_text("a plot")
    journal.log_artifact(journal.folder / "plot.txt", "plots")
    journal.end("FINISHED")
    assert capsys.readouterr().err == ""
    stored = utf8(name)  # A name that is not UTF-8 has its bytes escaped.
    assert query_store(project, "select name, status from runs") == [(stored, "FINISHED")]
    assert [path.name for path in (project / "mlruns" / "artifacts").rglob("*.txt")] == ["plot.txt"]
    done = runs_py(project, "sync", str(journal.folder))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{utf8(journal.folder)}: complete" in done.stdout
