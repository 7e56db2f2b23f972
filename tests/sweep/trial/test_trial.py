"""`trial` from the command line to its verdict; runs are replaced by values, except in one test."""

import json
import shutil
from dataclasses import dataclass, field

import pytest

from mlxlab.cli import train
from mlxlab.errors import RunInterrupted
from mlxlab.record.run_record import Training
from mlxlab.run import entry
from mlxlab.run.entry import run_experiment
from mlxlab.run.writer import RunWriter
from mlxlab.sweep.trial.record import read_record
from support.commands import command as command_of
from support.past_run import past_run

CHANGE = "trainer.learning_rate=1e-3"


@dataclass
class Runs:
    """Stands for training: the loss by seed is that of `losses`, less `gain` for the changed run."""

    gain: float
    errors: dict = field(default_factory=dict)  # (seed, is_changed) -> what the run raises
    runs: list = field(default_factory=list)

    def __call__(self, config, folder, **_):
        key = config.seed, config.trainer.learning_rate == 1e-3
        self.runs.append((*key, config.trainer.max_steps))
        with RunWriter(folder) as writer:
            if key in self.errors:
                raise self.errors[key]
            loss = 0.5 + 0.01 * (config.seed % 3) - key[1] * (self.gain + 0.001 * config.seed)
            final = {"valid/loss": loss + 0.1}
            writer.trained(Training("valid/loss", best=loss, final=final), 0)
        return loss


@pytest.fixture
def command(tmp_path, monkeypatch, capfd):
    """Runs the command in an empty project; returns exit code, output and messages."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(past_run(), tmp_path / "base")

    run_trial = command_of("trial")

    def run(runs, *args):
        monkeypatch.setattr(entry, "run_experiment", runs)
        capfd.readouterr()
        code = run_trial(["baseline=base", "folder=t", "hydra/launcher=basic", *args])
        return code, *capfd.readouterr()

    return run


def test_an_interrupted_trial_continues_and_a_decided_one_stays(command, tmp_path, capfd):
    first = Runs(0.1, errors={(1, True): RunInterrupted("stopped", 2)})
    code, _, err = command(first, CHANGE, "budget=7steps")
    assert code == 130
    assert "interrupted; the same command continues" in err
    assert train.main(["sweep.resume=t"]) == 2
    typed = f"mlxlab trial baseline=base folder=t hydra/launcher=basic {CHANGE} budget=7steps"
    assert typed in capfd.readouterr().err
    second = Runs(0.1)
    code, out, err = command(second, CHANGE, "budget=7steps", "--json")
    assert code == 0, err
    record = json.loads(out)
    assert (code, record["verdict"], record["folder"]) == (0, "keep", str(tmp_path / "t"))
    pairs = len(record["gains"])
    every = [(seed, is_changed, 7) for seed in range(pairs) for is_changed in (False, True)]
    assert first.runs[:-1] + second.runs == every
    assert [look["pairs"] for look in record["looks"]] == list(range(3, pairs + 1))
    assert f"{pairs} pairs: gain +0.1" in err
    third = Runs(0.1)
    code, out, _ = command(third, CHANGE, "budget=7steps")
    assert (code, third.runs) == (0, [])
    assert "keep: trainer.learning_rate=1e-3: the interval of the gain is above 0" in out


@pytest.mark.fault_injection
@pytest.mark.parametrize(
    ("args", "code", "expected"),
    [
        (["trainer.learning_rat=1"], 2, "did you mean trainer.learning_rate"),
        (["trainer.max_steps=3"], 2, "changes nothing in the config"),
        ([CHANGE, "metric=valid/acuracy"], 2, "valid/accuracy"),
        ([CHANGE, "hydra.launcher.n_job=2"], 2, "n_job"),
        (["trainer.learning_rate=1e-3,1e-2"], 2, "several values"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_trained(args, code, expected, command):
    runs = Runs(0.1)
    got, _, err = command(runs, *args)
    assert (got, runs.runs) == (code, []), err
    assert expected in err
    assert len(err.splitlines()) == 1


def test_a_real_trial_reuses_the_baseline_run(command, tmp_path):
    code, out, err = command(run_experiment, CHANGE, "seeds=2")
    assert code in (0, 10, 11), err
    runs = read_record(tmp_path / "t").runs
    arms = [(seed, arm) for seed in (0, 1) for arm in ("baseline", "changed")]
    assert [(run.seed, run.arm) for run in runs] == arms
    assert [run.reused for run in runs] == [True, False, False, False]
    assert runs[0].folder == str(tmp_path / "base")
    assert "0.6" in out
