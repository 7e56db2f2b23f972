"""`hydra/sweeper=search` under Hydra. The experiment is replaced by a function, but for one real search."""

import csv
import math
import re
import signal
from collections import Counter

import pandas as pd
import pytest

from mlxlab.errors import DataError, RunInterrupted
from mlxlab.record.run_file import read_run
from mlxlab.run import entry
from support.configs import line, user_config  # noqa: F401
from support.processes import run_here, tiny_overrides
from support.run_records import best_metrics
from support.sweep_jobs import write_attempts

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


def table(folder):
    """The jobs without the times."""
    with (folder / "report" / "jobs.csv").open() as file:
        return [
            {key: value for key, value in row.items() if key != "seconds"}
            for row in csv.DictReader(file)
        ]


def test_a_failed_trial_is_listed_with_its_reason_and_the_others_run(line, job):
    job.faults = {0: DataError("rows.csv:3:5: a number was expected"), 2: math.nan}
    grid = [
        *SEARCH,
        "hydra.sweeper.sampler=grid",
        "model.dropout=0,0.1,0.2",
        "objective=valid/accuracy",
    ]
    assert line(*grid) == 1
    assert [row["reason"] for row in table(line.project / "s")] == [
        "rows.csv:3:5: a number was expected",
        "",
        "valid/accuracy is nan",
    ]
    assert "| rows.csv:3:5: a number was expected" in line.out
    assert "best: trial 1, valid/accuracy 0.1\n" in line.out
    assert f"mlxlab train rerun={line.project}/s/1\n" in line.out
    assert "1 finished, 2 failed" in line.out
    assert "1 finished, 2 failed" in (line.project / "s" / "report.html").read_text()
    assert line(*grid) == 1  # nothing is missing: a failure is a result
    assert [name for name, *_ in job.seen] == ["0", "1", "2"]


def test_the_seconds_of_a_trial_are_those_of_all_attempts(line, monkeypatch):
    monkeypatch.setattr(
        entry, "run_experiment", lambda _, folder, **options: write_attempts(folder, 70.5, 7.5)
    )
    assert line(*SEARCH, "hydra.sweeper.sampler=grid", "model.dropout=0,0.1") == 0
    seconds = pd.read_csv(line.project / "s" / "report" / "jobs.csv")["seconds"]
    assert list(seconds) == pytest.approx([78, 78], abs=0.9)


def test_a_signal_stops_a_search_whose_space_is_in_a_file_and_the_same_command_continues(
    line, job, user_config
):
    params = "{seed: range(3), model.dropout: '0,0.1'}"
    sweeper = f"hydra:\n  sweeper:\n    sampler: random\n    trials: 2\n    params: {params}\n"
    mine = user_config(
        f"# @package _global_\ndefaults:\n  - override /hydra/sweeper: search\n{sweeper}"
    )
    job.faults = {1: RunInterrupted("stopped", signal.SIGTERM)}
    command = [
        "-m",
        *mine,
        "hydra.callbacks.parent_run.report=false",
        "tracking=none",
        "model.dropout=0.2,0.3",
        "hydra.sweep.dir=s",
    ]
    assert line(*command) == 143
    assert not (line.project / "s" / "report.html").exists()
    assert "1 finished, 1 unfinished" in line.out
    continued = ["sweep.resume=s", "trust_folder=true"]  # of a folder of config files
    command = " ".join(continued).replace("=s", f"={line.project}/s")
    assert f"continue: mlxlab train {command}\n" in line.out
    assert "--config-dir" in line.refuses(continued[0], code=77)
    assert line(*continued) == 0
    assert [(name, resume) for name, _, resume in job.seen] == [
        ("0", None),
        ("1", None),
        ("1", "auto"),
    ]
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


def test_a_stopped_trial_is_listed_as_stopped(line, job):
    job.faults = {0: RunInterrupted("stopped at step 3 and saved", signal.SIGTERM)}
    assert line(*SEARCH, "hydra.sweeper.sampler=random", "seed=range(3)") == 143
    [row] = table(line.project / "s")
    assert row["state"] == "unfinished"
    assert "1 unfinished" in line.out


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("seed=int(interval(0,9))", "seed=int(interval(0,9)): the sweep in {0} has seed=range(9)"),
        (
            "hydra.sweeper.sampler=tpe",
            "hydra.sweeper.sampler=tpe: the sweep in {0} has hydra.sweeper.sampler=random",
        ),
        ("hydra.sweeper.seed=3", "hydra.sweeper.seed=3: the sweep in {0} has hydra.sweeper.seed=0"),
        (
            "hydra.sweeper.min_budget=2",
            "hydra.sweeper.min_budget=2: the sweep in {0} has hydra.sweeper.min_budget=None",
        ),
    ],
)
def test_another_search_in_the_same_folder_is_refused_by_name(line, job, other, message):
    command = [*SEARCH, "hydra.sweeper.sampler=random", "hydra.sweeper.trials=2", "seed=range(9)"]
    assert line(*command) == 0
    key = other.partition("=")[0]
    again = [text for text in command if text.partition("=")[0] != key]
    refused = line.refuses(*again, other)
    assert message.format(line.project / "s") in refused
    assert "choose another hydra.sweep.dir" in refused


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["hydra.sweeper.trails=3"],
            "hydra.sweeper.trails=3: unknown key; did you mean hydra.sweeper.trials?",
        ),
        (
            ["model.dropout=interval(0,2)"],
            "model.dropout=2.0: expected a number >= 0 and < 1, got 2.0",
        ),
        (["seed=3"], "nothing to search"),
        (
            ["hydra.sweeper.sampler=cma"],
            "hydra.sweeper.sampler=cma: expected one of tpe, nsga, random, grid",
        ),
        (
            ["hydra.sweeper.pruner=hyper"],
            "pruner=hyper: expected one of none, median, asha, hyperband",
        ),
        (
            ["hydra.sweeper.pruner=asha", "hydra.sweeper.min_budget=90"],
            "min_budget=90: no rung before the end",
        ),
        (
            ["hydra.sweeper.pruner=asha", "trainer.max_steps=1,2"],
            "trainer.max_steps: expected one value, since it is the budget of hydra.sweeper.pruner=asha, which cannot",
        ),
        (
            ["hydra.sweeper.pruner=asha", "hydra.sweeper.objectives=[valid/loss,valid/f1]"],
            "hydra.sweeper.pruner=asha: expected one objective by sampler=tpe, random or grid; got 2 by sampler=tpe",
        ),
    ],
)
def test_an_invalid_search_is_refused_before_anything_is_made(line, job, args, message):
    space = [] if args[0].startswith(("model", "seed")) else ["seed=0,1"]
    assert message in line.refuses(*SEARCH, *args, *space, lines=None)
    assert not job.seen


def test_a_promoted_trial_ends_as_if_it_had_never_been_paused(tmp_path):
    schedule = [
        "trainer.max_steps=4",
        "trainer.eval_every=2",
        "checkpointing.every_steps=null",
        "model.dropout=0.1",
    ]
    short = [
        *tiny_overrides(*schedule),
        "hydra.sweeper.sampler=grid",
        "hydra.sweeper.reduction_factor=2",
    ]
    search = ["-m", "hydra/sweeper=search", "hydra/launcher=basic", "seed=0,1", *short]
    asha = run_here(*search, "hydra.sweeper.pruner=asha", f"hydra.sweep.dir={tmp_path}/asha")
    assert asha.returncode == 0, asha.stderr
    assert asha.stderr.count(": starts, ") == 2
    assert asha.stderr.count(": continues, ") == 1
    whole = run_here(*search, f"hydra.sweep.dir={tmp_path}/whole")
    assert Counter(row["state"] for row in table(tmp_path / "asha")) == {"paused": 1, "finished": 1}
    for row in table(tmp_path / "asha"):
        one, other = (tmp_path / folder / row["job"] for folder in ("asha", "whole"))
        record, full = read_run(one), read_run(other)
        if row["state"] == "finished":
            assert (record.evaluation, record.status) == (full.evaluation, "finished")
            assert final_states(asha)[-1] == final_states(whole)[int(row["job"])]
        else:
            loss = best_metrics(one)["valid/loss"]
            reason = f"valid/loss {loss:.4g}; paused: at 2 steps"
            assert (record.status, row["reason"]) == ("paused", reason)
            assert record.training.evaluations == full.training.evaluations[:1]


def test_a_real_search_takes_several_objectives_from_the_metrics_of_its_runs(tmp_path):
    short = tiny_overrides(
        "trainer.max_steps=2", "trainer.eval_every=2", "checkpointing.every_steps=null"
    )
    search = [
        "hydra.sweeper.sampler=nsga",
        "hydra.sweeper.objectives=[valid/loss,valid/accuracy]",
        "seed=range(3)",
    ]
    finished = run_here(
        "-m", "hydra/sweeper=search", *search, *short, f"hydra.sweep.dir={tmp_path}"
    )
    assert finished.returncode == 0, finished.stderr
    best = re.findall(r"^best: trial (\d+), (.*)$", finished.stdout, re.M)
    assert best
    for number, values in best:
        metrics = best_metrics(tmp_path / number)
        names = ("valid/loss", "valid/accuracy")
        assert values == ", ".join(f"{name} {metrics[name]:.6g}" for name in names)
