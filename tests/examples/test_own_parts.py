"""examples/own_parts: once it is installed, its options can be chosen and its own tests pass."""

import os
import re
import subprocess
import sys

import pytest

from support.example_projects import EXAMPLES, install, programs, shell, shell_lines
from support.processes import ROOT, environment

PACKAGE = EXAMPLES / "own_parts"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """PYTHONPATH with the installed package."""
    return install(PACKAGE, tmp_path_factory.mktemp("site"))


def mlxlab(*args, site, cwd):
    command = [sys.executable, "-m", "mlxlab", *args]
    env, output = environment(PYTHONPATH=site), {"capture_output": True, "text": True}
    return subprocess.run(command, cwd=cwd, env=env, check=False, **output)


@pytest.mark.fault_injection
def test_the_commands_of_the_readme_work(site, tmp_path):
    """All but the installation; `python -m pytest` trains two steps with each part."""
    (tmp_path / "reviews.tsv").write_bytes((PACKAGE / "reviews.tsv").read_bytes())
    first, test, *trainings = shell_lines(PACKAGE / "README.md")
    assert first == "pip install -e ."
    flags = "-q -p no:cacheprovider --import-mode=importlib"
    variables = {"PATH": programs(tmp_path / "bin"), "PYTHONPATH": site}
    printed = shell(f"{test} {flags} {PACKAGE}", tmp_path, **variables)
    assert "7 passed" in printed
    for line in trainings:
        program, *args = line.split()
        assert program == "mlxlab"
        done = mlxlab(*args, "trainer.max_steps=2", site=site, cwd=tmp_path)
        assert done.returncode == 0, done.stderr


def test_the_help_lists_the_options_of_an_installed_package(site, tmp_path):
    help_of = ("train", "--help", "model=bag_of_words", "model/size=none")
    done = mlxlab(*help_of, site=site, cwd=tmp_path)
    assert re.search(r"^ +reviews ", done.stdout, re.M)
    assert "* bag_of_words" in done.stdout
    assert "model.hidden_size=64" in done.stdout


def test_what_no_option_of_an_installed_package_names_stays_refused(site, tmp_path):
    target = "+trainer.loss={_target_: own_parts.callback.Other}"
    done = mlxlab("train", target, f"hydra.run.dir={tmp_path}/run", site=site, cwd=tmp_path)
    assert done.returncode == 77, done.stderr
    assert "own_parts.callback.Other" in done.stderr
    assert not (tmp_path / "run").exists()


def test_an_installed_package_does_not_replace_an_option_of_mlxlab(tmp_path):
    site = tmp_path / "site"
    (site / "other" / "conf" / "model").mkdir(parents=True)
    (site / "other" / "__init__.py").write_text("")
    (site / "other" / "conf" / "model" / "bert.yaml").write_text("_target_: os.system\n")
    (site / "other-1.dist-info").mkdir()
    (site / "other-1.dist-info" / "METADATA").write_text("Name: other\nVersion: 1\n")
    entry_points = site / "other-1.dist-info" / "entry_points.txt"
    entry_points.write_text("[mlxlab.plugins]\nother = other\n")
    path = f"{site}{os.pathsep}{ROOT / 'src'}"
    done = mlxlab("train", "--cfg", "job", site=path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "mlxlab.models.bert.Bert" in done.stdout
    assert "os.system" not in done.stdout
