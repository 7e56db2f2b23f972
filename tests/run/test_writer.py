"""The record that a run keeps of itself, whatever becomes of it."""

import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import psutil
import pytest

from mlxlab.errors import DataError, DivergenceError, InputNotFoundError, RunInterrupted, RunPruned
from mlxlab.record import provenance
from mlxlab.record.attempts import read_now, seconds_of
from mlxlab.record.run_file import DAMAGED, FILE, read_run, write_run
from mlxlab.record.run_record import STATUSES, Parent, Training
from mlxlab.run.context import set_aside_earlier_run
from mlxlab.run.writer import RunWriter
from mlxlab.views.run_view import RunView
from support.processes import start, tiny_overrides, wait_for
from support.run_records import attempt_of, blank_record, edit_run


def status_of(folder):
    """By the file for shell scripts; there is always exactly one, and it agrees with the record."""
    [status] = [status for status in STATUSES if (folder / f"STATUS.{status}").exists()]
    assert status == read_run(folder).status
    return status


def refuse(folder):
    """An attempt that ends before it trains."""
    with pytest.raises(InputNotFoundError), RunWriter(folder):
        raise InputNotFoundError("no such file")


def git_of(commit):
    return lambda: {"mlflow.source.git.commit": commit, "mlflow.source.git.dirty": "false"}


def finish(folder, **fields):
    """An attempt that trains and ends well."""
    with RunWriter(folder) as writer:
        writer.begin(blank_record(**fields))


@pytest.mark.parametrize(
    ("error", "status", "code", "text"),
    [
        (None, "finished", 0, ""),
        (RunInterrupted("stopped at step 3", 15), "interrupted", 143, "stopped at step 3"),
        (KeyboardInterrupt(), "interrupted", 130, "Ctrl-C"),
        (DivergenceError("not finite"), "failed", 78, "not finite"),
        (RunPruned("paused: at 2 steps", 0.5), "paused", 0, "paused: at 2 steps"),
        (SystemExit(3), "failed", 3, "exited with code 3 before its end"),
        (ZeroDivisionError("of ours"), "failed", 70, "ZeroDivisionError: of ours"),
    ],
)
def test_the_status_records_how_the_run_ended(tmp_path, error, status, code, text):
    with suppress(*([type(error)] if error else [])), RunWriter(tmp_path) as writer:
        assert status_of(tmp_path) == read_now(tmp_path).status == "running"
        writer.begin(blank_record())
        if error:
            raise error
    record = read_run(tmp_path)
    assert status_of(tmp_path) == read_now(tmp_path).status == status
    assert record.attempts[-1].exit_code == code
    assert record.attempts[-1].error == text
    assert 0 <= record.training.seconds < 60


def test_numbers_stay_numbers_and_a_commit_of_digits_stays_text(tmp_path, monkeypatch):
    training = Training(best=7.5e-06, steps=12, final_state="2024", speed=float("nan"))
    monkeypatch.setattr(provenance, "git", git_of("1234567"))
    with RunWriter(tmp_path) as writer:
        writer.begin(blank_record())
        writer.trained(training, 7)
    facts = json.loads((tmp_path / FILE).read_text(), parse_constant=pytest.fail)
    assert (facts["code"]["commit"], facts["code"]["dirty"]) == ("1234567", False)
    written = facts["training"]
    assert (written["best"], written["steps"], written["final_state"]) == (7.5e-06, 12, "2024")
    assert written["speed"] is None
    assert facts["model"]["parameters"] == 7


def test_the_next_attempt_keeps_id_and_name_and_adds_its_duration(tmp_path):
    finish(tmp_path, id="0a", name="first")
    before = read_run(tmp_path)
    finish(tmp_path, parents=[Parent("teacher", "x")])
    after = read_run(tmp_path)
    assert (after.id, after.name) == (before.id, before.name) == ("0a", "first")
    assert after.attempts[0] == before.attempts[0]
    assert len(after.attempts) == 2
    assert after.training.seconds == pytest.approx(sum(each.seconds for each in after.attempts))


@pytest.mark.parametrize("has_begun", [True, False])
def test_a_refused_attempt_leaves_a_killed_run_killed(tmp_path, has_begun):
    expected = "killed" if has_begun else "failed"
    dead = attempt_of("running", host=platform.node(), process_start=0.0, end=None)
    write_run(tmp_path, blank_record(id="a", attempts=[dead], has_begun=has_begun))
    for count in (1, 2):  # the second one finds the status that the first one wrote
        writer = RunWriter(tmp_path)
        with pytest.raises(InputNotFoundError), writer:
            raise InputNotFoundError("no such file")
        assert (writer.earlier and writer.earlier.status) == (expected if has_begun else None)
        assert status_of(tmp_path) == read_now(tmp_path).status == expected
        statuses = [attempt.status for attempt in read_run(tmp_path).attempts]
        assert statuses == ["killed", *["failed"] * count]


@pytest.mark.parametrize("status", ["finished", "interrupted", "killed"])
@pytest.mark.parametrize("host", [platform.node(), "elsewhere"])
def test_a_refused_attempt_leaves_the_status_of_the_last_one_that_began(tmp_path, status, host):
    written = "running" if status == "killed" else status
    trained = attempt_of(written, host=host, process_start=0.0)
    killed = attempt_of("running", host=host, process_start=0.0, trained=False)
    record = blank_record(id="a", attempts=[trained, killed], has_begun=True)
    write_run(tmp_path, record)
    refuse(tmp_path)
    assert status_of(tmp_path) == read_now(tmp_path).status == status
    assert RunView(read_run(tmp_path), tmp_path).deciding_attempt.error == ""


def test_a_complete_record_exists_at_every_moment(tmp_path):
    code = """
import sys, pathlib
from mlxlab.run.writer import RunWriter
from mlxlab.record.run_record import RunRecord, Training
while True:
    with RunWriter(pathlib.Path(sys.argv[1])) as writer:
        writer.begin(RunRecord("", "", "running", []))
        writer.trained(Training(final={str(i): i for i in range(300)}), 1)
"""
    writer = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    try:
        wait_for(tmp_path / FILE, writer)
        until = time.monotonic() + 1
        while time.monotonic() < until:
            assert read_run(tmp_path).status in STATUSES
    finally:
        writer.kill()
        writer.wait()
    read_run(tmp_path)


def test_a_reused_process_id_does_not_make_a_dead_run_alive(tmp_path):
    with RunWriter(tmp_path) as writer:
        writer.begin(blank_record())
        writer.code(wait=30.0)  # the thread that asks git writes the file too
        record = read_run(tmp_path)
        record.attempts[-1].process_start -= 3600
        write_run(tmp_path, record)
        assert read_now(tmp_path).status == "killed"
        record.attempts[-1].host = "elsewhere"
        write_run(tmp_path, record)
        assert read_now(tmp_path).status == "running"  # nobody here can tell


def test_the_status_tells_runs_that_end_from_those_stopped_or_killed(tmp_path):
    settings = tiny_overrides("trainer.max_steps=100000", "checkpointing.every_steps=2")
    attempts = [(settings, signal.SIGTERM, "interrupted"), ([], signal.SIGKILL, "running")]
    for typed, number, status in attempts:
        process = start(*typed, f"hydra.run.dir={tmp_path}", "resume=auto")
        wait_for(tmp_path / "STATUS.running", process)
        wait_for(tmp_path / "checkpoints", process)  # before, a signal ends the preparation
        wait_until_begun(tmp_path, process)
        assert read_now(tmp_path).status == "running"
        process.send_signal(number)
        process.communicate()
        assert status_of(tmp_path) == status
    assert read_now(tmp_path).status == "killed"
    record = read_run(tmp_path)
    assert not psutil.pid_exists(record.attempts[-1].pid)
    assert len(record.attempts) == 2
    assert "trainer.max_steps=100000" in record.command.overrides


def wait_until_begun(folder, process):
    until = time.monotonic() + 60
    while True:
        last = read_run(folder).attempts[-1]
        if last.pid == process.pid and last.trained:
            return
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_damaged_record_is_one_line_and_a_new_run_replaces_it(tmp_path, caplog):
    finish(tmp_path)
    path = tmp_path / FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "TRAINING"}))
    damaged = path.read_bytes()
    for read in (read_run, read_now):
        with pytest.raises(DataError, match=rf"^{path}: [^\n]+$"):
            read(tmp_path)
    finish(tmp_path)
    assert read_run(tmp_path).status == "finished"
    assert len(caplog.messages) == 1
    assert (tmp_path / DAMAGED).read_bytes() == damaged


def test_git_that_answers_late_writes_nothing_into_a_folder_that_is_free(tmp_path, monkeypatch):
    answers = threading.Event()

    def slow():
        answers.wait(30)
        return git_of("late")()

    monkeypatch.setattr(provenance, "git", slow)
    with RunWriter(tmp_path) as writer:
        writer.begin(blank_record())
    answers.set()
    writer.code(wait=30.0)
    assert read_run(tmp_path).code.commit == ""


def test_an_attempt_without_its_process_is_shown_as_ended_before_the_next_one_begins(tmp_path):
    with RunWriter(tmp_path) as writer:
        writer.begin(blank_record())
        [running] = read_now(tmp_path).attempts
        assert (running.end, running.status) == (None, "running")
    process = {"host": platform.node(), "pid": os.getpid(), "process_start": 990.0}
    dead = attempt_of("running", start=1000.0, end=None, **process)
    earlier = attempt_of("running", start=1000.0, end=1005.0, **process)
    write_run(tmp_path, blank_record(id="a", attempts=[earlier, dead]))
    for file in tmp_path.iterdir():
        os.utime(file, (1060.0, 1060.0))
    (tmp_path / "report.html").write_text("of another command")
    ended = read_now(tmp_path).attempts
    assert [(each.end, each.status) for each in ended] == [(1005.0, "killed"), (1060.0, "killed")]
    assert read_run(tmp_path).attempts[1] == dead, "nothing is written"
    with RunWriter(tmp_path):
        pass
    assert read_run(tmp_path).attempts[1].end == 1060.0


def test_a_resume_of_a_finished_run_is_no_attempt_and_changes_nothing(tmp_path, monkeypatch):
    finish(tmp_path)
    before = read_run(tmp_path)
    monkeypatch.setattr(provenance, "git", git_of("later"))
    for _ in range(2):
        with RunWriter(tmp_path):
            pass
    assert read_run(tmp_path) == before
    refuse(tmp_path)
    after = read_run(tmp_path)
    assert after.training == before.training
    assert after.code == before.code, "that of the code that trained"
    assert [each.trained for each in after.attempts] == [True, False]
    assert seconds_of(after.attempts) == pytest.approx(before.training.seconds)


@pytest.mark.parametrize("uid", ["/../../escaped", "../escaped", "", "a\nb"])
def test_an_earlier_run_of_a_stranger_moves_nowhere_but_into_the_folder(tmp_path, uid):
    folder = tmp_path / "run"
    finish(folder)
    (folder / "earlier-").mkdir()  # on the way of a path in the id
    edit_run(folder, lambda record: setattr(record, "id", uid))
    with RunWriter(folder) as writer:
        set_aside_earlier_run(writer)
        writer.begin(blank_record(id="new"))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert [each.status for each in read_run(folder).attempts] == ["finished"]
    assert read_run(folder / "earlier-run").id == uid
