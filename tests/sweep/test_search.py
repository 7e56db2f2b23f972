"""`hydra/sweeper=search` under Hydra. The experiment is replaced by a function, but for one real search."""

import math
import signal
from collections import Counter

import pytest

from mlxlab.analysis.sweeps.sweep_jobs import read_sweep
from mlxlab.errors import DataError, RunInterrupted
from mlxlab.record.run_file import read_run
from mlxlab.run import entry
from support.configs import line, user_config  # noqa: F401
from support.processes import run_here, tiny_overrides

SEARCH = ["-m", "hydra/sweeper=search", "tracking=none", "hydra.sweep.dir=s"]


@pytest.fixture
def job(line, monkeypatch):
    """The runs so far: (name of the folder, dropout, `resume`). Faults are raised, or returned, by index."""

    def run(config, folder, **_options):
        seen.append((folder.name, config.model.dropout, config.resume))
        fault = run.faults.pop(len(seen) - 1, config.model.dropout)
        if isinstance(fault, BaseException):
            raise fault
        return fault

    seen, run.faults = [], {}
    run.seen = seen
    monkeypatch.setattr(entry, "run_experiment", run)
    return run


def final_states(finished):
    return [text for text in finished.stdout.splitlines() if text.startswith("final_state=")]


def test_a_failed_trial_is_listed_with_its_reason_and_the_others_run(line, job):
    job.faults = {0: DataError("rows.csv:3:5: a number was expected"), 1: 0.1, 2: math.nan}
    space = ["model.dropout=0,0.1,0.2", "objective=valid/accuracy"]
    search = [*SEARCH, "hydra.sweeper.sampler=random", *space]
    assert line(*search) == 1
    reasons = ["rows.csv:3:5: a number was expected", "", "valid/accuracy is nan"]
    assert [job.reason for job in read_sweep(line.project / "s").jobs] == reasons
    assert "| rows.csv:3:5: a number was expected" in line.out
    assert "best: trial 1, valid/accuracy 0.1\n" in line.out
    assert f"mlxlab train rerun={line.project}/s/1\n" in line.out
    assert "1 finished, 2 failed" in line.out
    assert "1 finished, 2 failed" in (line.project / "s" / "report.html").read_text()
    assert line(*search) == 1  # nothing is missing: a failure is a result
    assert [name for name, *_ in job.seen] == ["0", "1", "2"]


def test_a_signal_stops_a_search_whose_space_is_in_a_file_and_the_same_command_continues(
    line, job, user_config
):
    params = "{seed: range(3), model.dropout: '0,0.1'}"
    sweeper = f"hydra:\n  sweeper:\n    sampler: random\n    trials: 2\n    params: {params}\n"
    head = "# @package _global_\ndefaults:\n  - override /hydra/sweeper: search\n"
    job.faults = {1: RunInterrupted("stopped", signal.SIGTERM)}
    settings = ["hydra.callbacks.parent_run.report=false", "model.dropout=0.2,0.3"]
    command = ["-m", *user_config(f"{head}{sweeper}"), "tracking=none", "hydra.sweep.dir=s"]
    assert line(*command, *settings) == 143
    assert not (line.project / "s" / "report.html").exists()
    assert "1 finished, 1 unfinished" in line.out
    continued = ["sweep.resume=s", "trust_folder=true"]  # of a folder of config files
    command = " ".join(continued).replace("=s", f"={line.project}/s")
    assert f"continue: mlxlab train {command}\n" in line.out
    assert "--config-dir" in line.refuses(continued[0], code=77)
    assert line(*continued) == 0
    resumed = [(name, resume) for name, _, resume in job.seen]
    assert resumed == [("0", None), ("1", None), ("1", "auto")]
    assert {dropout for _, dropout, _ in job.seen} <= {0.2, 0.3}


def test_a_search_continues_with_its_own_objective_and_with_more_trials(line, job):
    search = [*SEARCH, "hydra.sweeper.sampler=random", "seed=range(9)"]
    assert line(*search, "hydra.sweeper.trials=2") == 0
    other = "objective=valid/accuracy"
    assert f"{other}: the sweep in" in line.refuses(*search, other)
    expected = f"hydra/sweeper=grid: the sweep in {line.project}/s has hydra/sweeper=search"
    assert expected in line.refuses("-m", "tracking=none", "hydra.sweep.dir=s", "seed=0,1")
    assert line("sweep.resume=s", "hydra.sweeper.trials=4") == 0
    assert [name for name, *_ in job.seen] == ["0", "1", "2", "3"]
    assert line("sweep.resume=s") == 0
    assert len(job.seen) == 4
    assert line("-m", "tracking=none", "hydra.sweep.dir=g", "seed=0,1") == 0
    assert "hydra/sweeper=search: the sweep in" in line.refuses(
        *SEARCH[:-1], "hydra.sweep.dir=g", "seed=range(3)"
    )


@pytest.mark.parametrize(
    ("other", "before"),
    [
        ("seed=int(interval(0,9))", "seed=range(9)"),
        ("hydra.sweeper.sampler=tpe", "hydra.sweeper.sampler=random"),
        ("hydra.sweeper.min_budget=2", "hydra.sweeper.min_budget=None"),
    ],
)
def test_another_search_in_the_same_folder_is_refused_by_name(line, job, other, before):
    command = [*SEARCH, "hydra.sweeper.sampler=random", "hydra.sweeper.trials=2", "seed=range(9)"]
    assert line(*command) == 0
    key = other.partition("=")[0]
    again = [text for text in command if text.partition("=")[0] != key]
    refused = line.refuses(*again, other)
    assert f"{other}: the sweep in {line.project}/s has {before}" in refused


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("hydra.sweeper.trails=3 seed=0,1", "did you mean hydra.sweeper.trials?"),
        ("model.dropout=interval(0,2)", "model.dropout=2.0: expected a number >= 0 and < 1"),
        ("seed=3", "nothing to search"),
        ("hydra.sweeper.sampler=cma seed=0,1", "expected one of tpe, random"),
        ("hydra.sweeper.pruner=hyper seed=0,1", "expected one of none, asha"),
    ],
)
def test_an_invalid_search_is_refused_before_anything_is_made(line, job, args, message):
    assert message in line.refuses(*SEARCH, *args.split(), lines=None)
    assert not job.seen


SHORT = ["trainer.eval_every=2", "checkpointing.every_steps=null"]


def test_a_promoted_trial_ends_as_if_it_had_never_been_paused(tmp_path):
    short = tiny_overrides(*SHORT, "trainer.max_steps=4", "model.dropout=0.1")
    seeds = ["seed=0,1", "hydra.sweeper.sampler=random", "hydra.sweeper.reduction_factor=2"]
    search = ["-m", "hydra/sweeper=search", "hydra/launcher=basic", *seeds, *short]
    asha = run_here(*search, "hydra.sweeper.pruner=asha", f"hydra.sweep.dir={tmp_path}/asha")
    assert asha.returncode == 0, asha.stderr
    assert asha.stderr.count(": starts, ") == 2
    assert asha.stderr.count(": continues, ") == 1
    whole = run_here(*search, f"hydra.sweep.dir={tmp_path}/whole")
    jobs = read_sweep(tmp_path / "asha").jobs
    assert Counter(job.state for job in jobs) == {"paused": 1, "finished": 1}
    for job in jobs:
        record, full = (read_run(tmp_path / name / str(job.number)) for name in ("asha", "whole"))
        if job.state == "finished":
            assert (record.evaluation, record.status) == (full.evaluation, "finished")
            assert final_states(asha)[-1] == final_states(whole)[job.number]
        else:
            assert record.status == "paused"
            assert job.reason.endswith("; paused: at 2 steps")
            assert record.training.evaluations == full.training.evaluations[:1]
