"""The sweeps of `conf/sweep`: each composes, and `--dry-run` lists its jobs without running them."""

import pytest

from mlxlab.cli.train import main
from mlxlab.config.option_files import groups
from mlxlab.config.paths import conf_dir

SWEEPS = {  # with fewer values than the preset has, which what is typed replaces -> (what is first printed, last job)
    "titanic_folds": ("model=bert", "5 jobs checked", "4: data.fold=4 sweep=titanic_folds"),
    "learning_rate": ("seed=0", "5 jobs checked", "trainer.learning_rate=0.01"),
    "size_ladder": ("seed=3", "3 jobs checked", "model/size=small"),
    "optuna_titanic": ("hydra.sweeper.trials=7", "jobs checked", "model.dropout=0.5"),
}


def test_every_preset_is_listed_here():
    assert groups([conf_dir()])["sweep"].keys() == SWEEPS.keys()


@pytest.mark.parametrize("name", SWEEPS)
def test_a_preset_is_checked_and_its_jobs_are_listed(name, capsys):
    typed, first, last = SWEEPS[name]
    assert main([f"sweep={name}", typed, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(first)
    assert last in lines[-1]


def test_a_dry_run_of_values_that_are_typed_needs_no_preset(capsys):
    assert main(["-m", "seed=0,1", "trainer.epochs=2", "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("2 jobs checked\n0: seed=0 trainer.epochs=2\n")
    assert main(["sweep=titanic_fold", "--dry-run"]) == 2
    assert "did you mean titanic_folds?" in capsys.readouterr().err
