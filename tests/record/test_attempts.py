"""What a sweep knows of its jobs, by the records of their runs."""

import pytest

from mlxlab.errors import DataError, RunPruned
from mlxlab.record.attempts import Ending, begin_job, end_job, read_job, read_jobs, record_crash
from mlxlab.record.run_file import DAMAGED, FILE, read_run
from mlxlab.record.run_record import JobIdentity

JOB = JobIdentity(3, ["seed=3"])
KILLED = Ending("failed", "killed by SIGKILL", 137)


def test_a_process_that_was_killed_before_it_recorded_itself_is_an_attempt(tmp_path):
    for _ in range(2):  # The launcher records a process once.
        record_crash(tmp_path, JOB, 7, 2.0, KILLED)
        job = read_job(tmp_path)
        assert (job.job, job.state, job.reason) == (JOB, "failed", "killed by SIGKILL")
        assert (job.exit_code, job.attempts, job.pid) == (137, 1, 7)
        assert job.seconds == pytest.approx(2.0, abs=1.0)
    assert read_run(tmp_path).status == "failed"


def test_a_job_that_continues_is_the_job_that_began(tmp_path):
    begin_job(tmp_path, JOB, "valid/loss")
    end_job(tmp_path, RunPruned("paused: at 3 steps", 0.5), 0.5)
    assert (read_job(tmp_path).state, read_job(tmp_path).value) == ("paused", 0.5)
    begin_job(tmp_path, JobIdentity(3, ["seed=3", "resume=auto"], budget=9), "valid/loss")
    job = read_job(tmp_path)
    assert job.job == JobIdentity(3, ["seed=3"], budget=9)
    assert (job.state, job.value, job.attempts) == ("running", None, 2)


def test_a_value_that_is_not_finite_is_none(tmp_path):
    begin_job(tmp_path, JOB, "valid/loss")
    end_job(tmp_path, None, float("nan"))
    job = read_job(tmp_path)
    assert (job.state, job.reason, job.exit_code) == ("failed", "valid/loss is nan", 1)
    assert job.value is None


def test_a_damaged_record_is_kept_and_its_job_begins_again(tmp_path, caplog):
    folder = tmp_path / "0"
    folder.mkdir()
    (folder / FILE).write_text("{")
    assert read_jobs(tmp_path) == {}
    with pytest.raises(DataError):
        read_job(folder)
    begin_job(folder, JOB, "valid/loss")
    assert read_job(folder).state == "running"
    assert (folder / DAMAGED).read_text() == "{"
    assert len(caplog.messages) == 2
