"""examples/motifs: the package is installed and used by the commands of its README."""

import csv
import os
import shutil
import sys

import pytest

from support.example_projects import EXAMPLES, programs, shell, shell_lines
from support.processes import ROOT

SMALL = {"1200": "200", "experiment=motifs": "experiment=motifs trainer.max_steps=6 trainer.eval_every=3 tracking=none"}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder in which the package is installed, as a value of PYTHONPATH."""
    folder = tmp_path_factory.mktemp("site")
    options = "-q --no-deps --no-index --no-build-isolation --disable-pip-version-check"
    shell(f"{sys.executable} -m pip install {options} --target . {EXAMPLES / 'motifs'}", folder)
    return f"{folder}{os.pathsep}{ROOT / 'src'}"


def follow_readme(folder, site, changes):
    project = shutil.copytree(EXAMPLES / "motifs", folder / "motifs", ignore=shutil.ignore_patterns("src"))
    path = programs(folder / "bin")
    for line in shell_lines(project / "README.md"):
        for old, new in changes.items():
            line = line.replace(old, new)
        if not line.startswith("pip install"):
            shell(line, project, PATH=path, PYTHONPATH=site)
    return project


def test_the_commands_of_the_readme_end_in_predictions(site, tmp_path):
    project = follow_readme(tmp_path, site, SMALL)
    with (project / "predictions.csv").open() as file:
        assert [row["sequence"][4:11] for row in csv.DictReader(file)] == ["TTGACTC", "TTCCATC"]


@pytest.mark.fault_injection
def test_the_model_finds_the_site_and_the_tests_of_the_package_pass(site, tmp_path):
    project = follow_readme(tmp_path, site, {"hydra.run.dir": "tracking=none hydra.run.dir"})
    with (project / "predictions.csv").open() as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["bound", "unbound"]
    printed = shell(f"{sys.executable} -m pytest -q -p no:cacheprovider", project, PYTHONPATH=site)
    assert "8 passed" in printed
