"""Every command that prints facts prints them as JSON, too."""

import json
import subprocess
import sys

import pytest

from mlxlab.cli.command import _signatures
from mlxlab.cli.main import command_module, main, subcommands
from support.processes import environment

WITHOUT_JSON = {
    "train": "its results are files of the run folder: summary.json, metrics.csv",
    "launch": "as train",
    "schema": "prints JSON always",
    "ui": "serves until it is stopped",
}


def options():
    """(name, options) of every action of a command."""
    yield "train", {}
    for name in set(subcommands()) - {"train"}:
        for action, known in _signatures(command_module(name)).items():
            yield f"{name} {action}".strip(), known.keys


OPTIONS = dict(sorted(options()))


@pytest.mark.parametrize("name", OPTIONS)
def test_a_command_has_the_option_json_or_a_reason_not_to(name):
    assert ("json" in OPTIONS[name]) != (name in WITHOUT_JSON), WITHOUT_JSON.get(name)


def test_standard_output_is_one_json_document(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/store.db")
    for command in ("kernels info", "runs sync"):
        assert main([*command.split(), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("package", "args"), [("psutil", ["runs", "list"]), ("numpy", ["example_losses", "top", "{}"])]
)
def test_a_missing_package_costs_one_line_and_the_doctor_names_it(package, args, tmp_path):
    code = f"raise ModuleNotFoundError('missing', name='{package}')"
    (tmp_path / f"{package}.py").write_text(code)
    env = environment() | {"PYTHONPATH": ":".join([str(tmp_path), *filter(None, sys.path)])}
    command = [sys.executable, "-m", "mlxlab", *(arg.format(tmp_path) for arg in args)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (69, 1)
    assert f"the package {package} is not installed" in done.stderr
    probe = [sys.executable, "-c", "import mlxlab.cli.doctor, sys; print(*sys.modules)"]
    done = subprocess.run(probe, env=env, capture_output=True, text=True, check=True)
    assert package not in done.stdout.split()
