"""The default sweeper: no job runs twice, and a folder continues its sweep. The experiment is replaced."""

import re
import shlex
import signal
from types import SimpleNamespace

import pytest
from hydra.core.plugins import Plugins

from mlxlab.errors import DataError, InputNotFoundError, RunInterrupted
from mlxlab.past_runs.lookup import find_run_folder
from mlxlab.past_runs.run_lock import read_lock
from mlxlab.record.attempts import JobRecord, read_jobs
from mlxlab.record.run_file import read_run
from mlxlab.run import entry
from support.configs import line  # noqa: F401

SWEEP = ["-m", "tracking=none", "hydra.sweep.dir=s"]
STOPPED = RunInterrupted("stopped at step 3 and saved", signal.SIGTERM)


@pytest.fixture
def job(line, monkeypatch):
    """The runs so far: (name of the folder, seed, `resume`). Faults are raised, by seed."""

    def run(config, folder, **_options):
        seen.append((folder.name, config.seed, config.resume))
        if config.seed in run.faults:
            raise run.faults[config.seed]
        return config.seed / 10

    seen, run.faults = [], {}
    run.seen = seen
    monkeypatch.setattr(entry, "run_experiment", run)
    return run


def jobs(line) -> list[JobRecord]:
    records = read_jobs(line.project / "s").values()
    return sorted(records, key=lambda record: record.job.number)


def test_a_job_runs_once_however_often_it_is_asked_for(line, job):
    assert line(*SWEEP, "seed=0,1,0", "data=titanic") == 0
    assert [each.state for each in jobs(line)] == ["finished", "finished"]
    assert line(*SWEEP, "seed=0,1,2", "data=titanic") == 0  # a larger sweep in the same folder
    assert "2 jobs known, 2 of them ended; 1 new" in line.err
    assert job.seen == [("0", 0, None), ("1", 1, None), ("2", 2, None)]


def test_failed_jobs_are_results_and_run_again_only_on_request(line, job):
    job.faults[1] = DataError("rows.csv:3:5: a number was expected")
    assert line(*SWEEP, "seed=0,1") == 1
    assert line(*SWEEP, "seed=0,1") == 1
    assert len(job.seen) == 2
    command = f"train sweep.resume={line.project}/s hydra.sweeper.retry_failed=true"
    assert f"run failed jobs again: mlxlab {command}" in line.out
    del job.faults[1]
    assert line("sweep.resume=s", "hydra.sweeper.retry_failed=true") == 0
    assert job.seen[2:] == [("1", 1, "auto")]
    ended = [(each.state, each.attempts, each.value) for each in jobs(line)]
    assert ended == [("finished", 1, 0.0), ("finished", 2, 0.1)]
    assert "run failed jobs again" not in line.out


@pytest.mark.parametrize("name", ["s", "my sweep"])
def test_a_stopped_sweep_is_continued_by_its_folder_alone(line, job, name):
    job.faults[1] = STOPPED
    assert line("-m", "tracking=none", f"hydra.sweep.dir={name}", "seed=0,1,2") == 143
    [command] = re.findall("^continue: (.*)$", line.out, re.M)
    assert shlex.split(command) == ["mlxlab", "train", f"sweep.resume={line.project}/{name}"]
    job.faults.clear()
    assert line(f"sweep.resume={name}") == 0
    assert job.seen == [("0", 0, None), ("1", 1, None), ("1", 1, "auto"), ("2", 2, None)]


def test_what_cannot_be_continued_is_refused_in_one_line(line, job):
    assert "expected the folder of a sweep" in line.refuses("sweep.resume=missing", code=66)
    assert line(*SWEEP, "seed=0,1") == 0
    assert "expected hydra/launcher, hydra.launcher.*, hydra" in line.refuses(
        "sweep.resume=s", "seed=3"
    )
    stored = line.project / "s" / "sweep.json"
    text = stored.read_text()
    for override in ("hydra/launcher=submitit_slurm", "model._target_=os.system"):
        stored.write_text(text.replace("hydra/launcher=basic", override))
        line.refuses("sweep.resume=s", code=77)
    stored.write_text(text.replace('"format": 2', '"format": 3'))
    assert "sweep.json: format: expected one of 2" in line.refuses("sweep.resume=s", code=65)


def test_the_folder_of_a_sweep_is_no_run(line, job):
    assert line(*SWEEP, "seed=0,1") == 0
    folder = line.project / "s"
    advice = f"this is the folder of a sweep: sweep.resume={folder} continues it, and its jobs are in {folder}/0, ..."
    for key in ("resume", "rerun"):
        assert advice in line.refuses(f"{key}={folder}", code=66)
    for read in (read_run, read_lock, find_run_folder):
        with pytest.raises(InputNotFoundError, match=re.escape(advice)):
            read(folder if read is not find_run_folder else str(folder))


def test_a_folder_is_not_continued_with_other_fixed_overrides(line, job):
    assert line(*SWEEP, "seed=0,1", "trainer.epochs=2") == 0
    stored = line.project / "s" / "sweep.json"
    before = stored.read_bytes()
    for changed, new, old in (
        (
            "trainer.epochs=2 objective=valid/accuracy",
            "objective=valid/accuracy",
            "objective=valid/loss",
        ),
        ("trainer.epochs=5", "trainer.epochs=5", "trainer.epochs=2"),
        ("trainer.epochs=2 data.fold=0 data.folds=2", "data.fold=0", "no data.fold"),
        ("data=titanic", "no trainer.epochs", "trainer.epochs=2"),
    ):
        refused = line.refuses(*SWEEP, "seed=0,1", *changed.split(), lines=None)
        assert f"{new}: the sweep in {line.project}/s has {old}" in refused
    assert stored.read_bytes() == before
    assert line(*SWEEP, "seed=0,1", "trainer.epochs=2,3") == 0  # now swept
    assert "2 jobs known, 2 of them ended; 2 new" in line.err
    assert len(job.seen) == 4


def test_jobs_with_different_objectives_are_refused_and_one_objective_is_that_of_the_sweep(
    line, job
):
    message = "objective: the jobs have valid/accuracy and valid/loss; choose one: objective=..."
    assert message in line.refuses(*SWEEP, "experiment=digits,diabetes")
    assert line(*SWEEP, "experiment=digits,wine", "trainer.max_steps=1500") == 0
    assert "| valid/accuracy |" in line.out


def test_data_files_are_looked_for_before_the_first_job(line, job):
    (line.project / "first.txt").write_text("text")
    streaming = [*SWEEP, "data=streaming", "model=transformer"]
    assert "data.source: secnd.txt: no such file or folder" in line.refuses(
        *streaming, "data.source=first.txt,secnd.txt", code=66
    )
    missing = ["data.source=*.txt", "data.valid_source='v*.txt'"]
    message = "data.valid_source: v*.txt: no file that ends in"
    assert message in line.refuses(*streaming, *missing, "seed=0,1", code=66)
    assert not job.seen
    assert not (line.project / "s").exists()


def test_a_launcher_of_a_plugin_that_gives_up_is_one_line(line, job, monkeypatch):
    def give_up(*args, **options):
        raise RuntimeError("a worker process was terminated\n\nby SIGKILL")

    command = [*SWEEP, "seed=0,1", "hydra/launcher=basic"]
    with monkeypatch.context() as patch:
        patch.setattr(Plugins, "instantiate_launcher", lambda *_: SimpleNamespace(launch=give_up))
        assert line(*command) == 75
    message = line.err.strip().splitlines()[-1]
    assert "basic: RuntimeError: a worker process was terminated by SIGKILL; the same" in message
    assert "Traceback" not in line.err
    assert jobs(line) == []
    job.faults[1] = STOPPED
    line(*command)
    assert f"continue: mlxlab train sweep.resume={line.project}/s" in line.out
    job.faults.clear()
    assert line(*command) == 0
