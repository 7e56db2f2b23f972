"""examples/own_parts: once it is installed, its options can be chosen and its own tests pass."""

import os
import re
import subprocess
import sys

import pytest

from support.example_projects import EXAMPLES, programs, shell, shell_lines
from support.processes import ROOT, environment

PACKAGE = EXAMPLES / "own_parts"
OPTIONS = "-q --no-deps --no-index --no-build-isolation --disable-pip-version-check"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder in which the package is installed."""
    folder = tmp_path_factory.mktemp("site")
    shell(f"{sys.executable} -m pip install {OPTIONS} --target . {PACKAGE}", folder)
    return folder


def mlxlab(*args, site, cwd):
    path = f"{site}{os.pathsep}{ROOT / 'src'}"
    return subprocess.run(
        [sys.executable, "-m", "mlxlab", *args],
        cwd=cwd,
        env=environment(PYTHONPATH=path),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.fault_injection
def test_the_commands_of_the_readme_work(site, tmp_path):
    """All but the installation; `python -m pytest` trains two steps with each part."""
    (tmp_path / "reviews.tsv").write_bytes((PACKAGE / "reviews.tsv").read_bytes())
    install, test, *trainings = shell_lines(PACKAGE / "README.md")
    assert install == "pip install -e ."
    path = f"{site}{os.pathsep}{ROOT / 'src'}"
    flags = "-q -p no:cacheprovider --import-mode=importlib"
    printed = shell(
        f"{test} {flags} {PACKAGE}", tmp_path, PATH=programs(tmp_path / "bin"), PYTHONPATH=path
    )
    assert "7 passed" in printed
    for line in trainings:
        program, *args = line.split()
        assert program == "mlxlab"
        done = mlxlab(*args, "trainer.max_steps=2", site=site, cwd=tmp_path)
        assert done.returncode == 0, done.stderr


def test_the_help_lists_the_options_of_an_installed_package(site, tmp_path):
    done = mlxlab(
        "train", "--help", "model=bag_of_words", "model/size=none", site=site, cwd=tmp_path
    )
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
    done = mlxlab("train", "--cfg", "job", site=site, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "mlxlab.models.bert.Bert" in done.stdout
    assert "os.system" not in done.stdout
