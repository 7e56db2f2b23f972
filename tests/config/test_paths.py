"""Where config files are looked for, and the folder of the outputs: the checkout inside of it, else the current one."""

import pytest

from mlxlab.cli.train import main as train
from mlxlab.config import paths
from mlxlab.config.paths import project_root
from support.commands import command
from support.past_run import past_run
from support.processes import ROOT, succeed_here, tiny_overrides

crossvalidate, evaluate, info, launch = map(
    command, ("crossvalidate", "evaluate", "info", "launch")
)
COMMANDS = [(train, ["model=bert"]), (info, ["presets"]), (launch, ["nproc=2", "model=bert"])]
COMMANDS += [(crossvalidate, ["folds=2"])]


@pytest.fixture(name="run_folder", scope="module")
def folder_of_a_run():
    return past_run()


@pytest.fixture(name="copied")
def copied_code(run_folder, monkeypatch, tmp_path):
    """src/ was copied, and conf/ too, but not pyproject.toml."""
    (tmp_path / "conf").mkdir()
    monkeypatch.setattr(paths, "_IN_CHECKOUT", False)
    monkeypatch.setattr(paths, "_CHECKOUT", tmp_path)
    monkeypatch.setattr(paths, "_PACKAGE", tmp_path / "src" / "mlxlab")
    return tmp_path


@pytest.mark.parametrize(("run_command", "args"), [*COMMANDS, (evaluate, ["run={run}"])])
def test_code_without_config_files_says_where_they_were_looked_for(
    copied, run_folder, run_command, args, capsys
):
    assert run_command([arg.format(run=run_folder) for arg in args]) == 66
    error = capsys.readouterr().err
    assert error.startswith(f"no config files: looked in {copied}/conf ")
    assert f"{copied}/src/mlxlab and {copied}/src\n" in error


def test_the_code_of_a_logged_model_has_its_config_files_next_to_it(copied):
    (copied / "src" / "conf").mkdir(parents=True)
    assert paths.conf_dir() == copied / "src" / "conf"


def test_outputs_of_a_checkout_stay_in_it_from_any_of_its_folders(monkeypatch):
    for folder in (ROOT, ROOT / "tests"):
        monkeypatch.chdir(folder)
        assert project_root() == ROOT


def test_outputs_go_below_the_current_folder_outside_of_the_checkout(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert project_root() == tmp_path
    succeed_here(*tiny_overrides("trainer.max_steps=2", "trainer.eval_every=2"))
    assert len(list((tmp_path / "outputs").glob("*/*/summary.md"))) == 1
