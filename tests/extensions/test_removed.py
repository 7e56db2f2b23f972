"""Without the folder of an extension and its YAML, the rest trains, resumes and reports."""

import json
import shutil
import subprocess
import sys

import pytest
import yaml

from support.past_run import CHEAP
from support.processes import ROOT, environment, tiny_overrides

EXTENSIONS = ROOT / "src" / "mlxlab" / "extensions"
REMOVABLE = sorted(path.parent.name for path in EXTENSIONS.glob("*/__init__.py"))
OPTIONS = {  # files of conf/ that are options of an extension, or choose one
    "cloud": ["cloud/azure", "cloud/directory", "cloud/gcs", "cloud/s3", "experiment/cloud"],
    "curriculum": [
        *(f"data/order/{name}" for name in ("curriculum", "measured", "staged")),
        "experiment/growth_course",
    ],
    "example_losses": ["callbacks/example_losses"],
    "growth": ["callbacks/growth", "experiment/growth_course"],
    "tracking_services": ["tracking/trackio", "tracking/wandb"],
    "weight_analysis": ["callbacks/analysis"],
}
DATA = ("instruct", "streaming", "table", "text_classification", "titanic")
ALL = {"_target_": "mlxlab.data.dataset.AllExamples"}
SAME_MODEL = "mlxlab.run.resume.policy.SameModel"
POLICY = {"_target_": SAME_MODEL, "allow_data_change": False, "min_match": 1.0}
NODES = {  # nodes of files of conf/, with what takes their place
    "growth": [("train", "resume_policy", POLICY)],
    "example_losses": [(f"data/{name}", "select", ALL) for name in DATA],
}
COMMANDS = """
import importlib.util
import sys
from mlxlab.cli.main import main

extension, folder, *settings = sys.argv[1:]
run = f"hydra.run.dir={folder}"
codes = [
    main(["train", *settings, run]),
    main(["train", run, f"resume={folder}", "trainer.max_steps=4"]),
    main(["report", folder]),
]
print(codes, importlib.util.find_spec(f"mlxlab.extensions.{extension}"))
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the package with its bytecode, and of conf/."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "src" / "mlxlab", folder / "src" / "mlxlab")
    shutil.copytree(ROOT / "conf", folder / "conf")
    shutil.copy2(ROOT / "pyproject.toml", folder)
    return folder


@pytest.fixture
def removed(request, checkout, tmp_path):
    """The name of an extension that is not in the copy."""
    name = request.param
    package, conf = checkout / "src" / "mlxlab" / "extensions" / name, checkout / "conf"
    package.rename(tmp_path / "package")
    shutil.copytree(conf, tmp_path / "conf")
    for option in OPTIONS.get(name, []):
        file = conf / f"{option}.yaml"
        file.unlink()
        default = file.with_name("default.yaml")
        if default.is_file():
            default.write_text(default.read_text().replace(f"  - {file.stem}\n", ""))
    for option, key, replacement in NODES.get(name, []):
        _replace_node(conf / f"{option}.yaml", key, replacement)
    yield name
    (tmp_path / "package").rename(package)
    shutil.rmtree(conf)
    (tmp_path / "conf").rename(conf)


def _replace_node(file, key, replacement):
    values = yaml.safe_load(file.read_text())
    values[key] = replacement
    file.write_text(yaml.safe_dump(values, sort_keys=False))


@pytest.mark.parametrize(
    "removed",
    [
        name if name == "growth" else pytest.param(name, marks=pytest.mark.slow)
        for name in REMOVABLE
    ],
    indirect=True,
)
def test_without_an_extension_the_rest_trains_resumes_and_reports(removed, checkout, tmp_path):
    files = (checkout / "conf").rglob("*.yaml")
    assert not [file for file in files if f"mlxlab.extensions.{removed}." in file.read_text()]
    folder = tmp_path / "run"
    settings = tiny_overrides("trainer.max_steps=2", "trainer.eval_every=2", *CHEAP)
    settings.remove("~callbacks.report")
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, removed, str(folder), *settings],
        env=environment(PYTHONPATH=str(checkout / "src")),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1] == "[0, 0, 0] None", done.stderr
    assert "resumed from step-00000002" in done.stderr
    assert json.loads((folder / "run.json").read_text())["training"]["steps"] == 4
    assert (folder / "report.html").is_file()
