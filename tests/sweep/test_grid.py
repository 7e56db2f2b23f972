"""The default sweeper: no configuration runs twice, and a folder continues its sweep. The experiment is replaced."""

import signal

import pytest

from mlxlab.errors import DataError, RunInterrupted
from mlxlab.experiment import experiment
from mlxlab.sweep.job_journal import Job, read_job_journal
from support.configs import line  # noqa: F401

SWEEP = ["-m", "tracking=none", "hydra.sweep.dir=s"]


@pytest.fixture
def job(line, monkeypatch):  # noqa: F811
    """The runs so far: (name of the folder, seed, `resume`). Faults are raised, by seed."""

    def run(config, folder, owns_process=False):
        seen.append((folder.name, config.seed, config.resume))
        if config.seed in run.faults:
            raise run.faults[config.seed]
        return config.seed / 10

    seen, run.faults = [], {}
    run.seen = seen
    monkeypatch.setattr(experiment, "run_experiment", run)
    return run


def jobs(line) -> list[Job]:  # noqa: F811
    return read_job_journal(line.project / "s")[1]


def test_a_configuration_runs_once_however_it_is_asked_for(line, job):  # noqa: F811
    assert line(*SWEEP, "seed=0,1,0", "data=titanic") == 0
    assert [each.state for each in jobs(line)] == ["finished", "finished", "skipped"]
    assert "same config as job 0" in line.out
    assert line(*SWEEP, "seed=0,1,2", "data=titanic") == 0  # a larger sweep in the same folder
    assert line(*SWEEP, "+seed=1", "name=null,other") == 0  # another command, one of whose jobs is known
    assert job.seen == [("0", 0, None), ("1", 1, None), ("3", 2, None), ("5", 1, None)]
    assert [each.reason for each in jobs(line)[4:]] == ["same config as job 1", ""]


def test_failed_jobs_are_results_and_run_again_only_on_request(line, job):  # noqa: F811
    job.faults[1] = DataError("rows.csv:3:5: a number was expected")
    assert line(*SWEEP, "seed=0,1") == 1
    assert line(*SWEEP, "seed=0,1") == 1
    assert len(job.seen) == 2
    del job.faults[1]
    assert line("sweep.resume=s", "hydra.launcher.retry_failed=true") == 0
    assert job.seen[2:] == [("1", 1, "auto")]
    assert [(each.state, each.attempts, each.value) for each in jobs(line)] == [
        ("finished", 1, 0.0),
        ("finished", 2, 0.1),
    ]


def test_a_stopped_sweep_is_continued_by_its_folder_alone(line, job):  # noqa: F811
    job.faults[1] = RunInterrupted("stopped at step 3 and saved", signal.SIGTERM)
    assert line(*SWEEP, "seed=0,1,2") == 143
    assert f"continue: mlxlab train sweep.resume={line.project}/s" in line.out
    job.faults.clear()
    assert line("sweep.resume=s") == 0
    assert job.seen == [("0", 0, None), ("1", 1, None), ("1", 1, "auto"), ("2", 2, None)]


def test_what_cannot_be_continued_is_refused_in_one_line(line, job):  # noqa: F811
    assert "expected the folder of a sweep" in line.refuses("sweep.resume=missing", code=66)
    assert line(*SWEEP, "seed=0,1") == 0
    assert "only hydra.launcher... may be changed" in line.refuses("sweep.resume=s", "seed=3")
    journal = line.project / "s" / "sweep.jsonl"
    text = journal.read_text()
    for override in ("hydra/launcher=submitit_slurm", "model._target_=os.system"):
        journal.write_text(text.replace("hydra/launcher=in_process", override))
        line.refuses("sweep.resume=s", code=77)
    journal.write_text(text.replace('"format":1', '"format":2'))
    assert "sweep.jsonl:1: sweep.format: expected one of 1" in line.refuses("sweep.resume=s", code=65)
