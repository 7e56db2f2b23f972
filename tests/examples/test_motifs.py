"""examples/motifs: the package is installed and used by the commands of its README."""

import csv
import shutil
import sys

import pytest
import yaml

from support.example_projects import EXAMPLES, install, programs, shell, shell_lines

SMALL = {
    "1200": "200",
    "experiment=motifs": "experiment=motifs trainer.max_steps=4 trainer.eval_every=2 tracking=none",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder in which the package is installed, as a value of PYTHONPATH."""
    return install(EXAMPLES / "motifs", tmp_path_factory.mktemp("site"))


def follow_readme(folder, site, changes, commands):
    no_source = shutil.ignore_patterns("src")
    project = shutil.copytree(EXAMPLES / "motifs", folder / "motifs", ignore=no_source)
    path = programs(folder / "bin")
    for line in shell_lines(project / "README.md"):
        for old, new in changes.items():
            line = line.replace(old, new)
        if line.startswith(commands):
            shell(line, project, PATH=path, PYTHONPATH=site)
    return project


@pytest.mark.slow
def test_the_installed_package_trains_with_all_of_its_parts(site, tmp_path):
    project = follow_readme(tmp_path, site, SMALL, ("python make", "mlxlab train"))
    config = project / "outputs" / "motifs" / "inference" / "config.yaml"
    parts = yaml.safe_load(config.read_text())
    assert parts["data"]["_target_"] == "motifs.dataset.Motifs"
    assert parts["trainer"]["loss"]["_target_"] == "motifs.loss.GeneralisedCrossEntropy"


@pytest.mark.fault_injection
def test_the_model_finds_the_site_and_the_tests_of_the_package_pass(site, tmp_path):
    untracked = {"hydra.run.dir": "tracking=none hydra.run.dir"}
    project = follow_readme(tmp_path, site, untracked, ("python", "mlxlab", "printf"))
    with (project / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    labels = [(row["sequence"][4:11], row["label"]) for row in rows]
    assert labels == [("TGACTCA", "bound"), ("TCCATCA", "unbound")]
    printed = shell(f"{sys.executable} -m pytest -q -p no:cacheprovider", project, PYTHONPATH=site)
    assert "8 passed" in printed
