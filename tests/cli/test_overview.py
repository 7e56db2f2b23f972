"""`mlxlab` without arguments, and the commands of extensions, which are found by the names of their modules."""

import subprocess
import sys

import pytest

import mlxlab.extensions
from mlxlab.cli import main as dispatcher
from mlxlab.cli.main import subcommands
from support.processes import environment

PROBE = (
    "import sys; from mlxlab.cli.main import main; main([]); print(*sys.modules, file=sys.stderr)"
)


def test_every_command_has_a_line_of_its_own_and_nothing_heavy_is_imported():
    command = [sys.executable, "-c", PROBE]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 120
    for name, heading in subcommands().items():
        assert f"  {name:<15} {heading}" in lines
    modules = {name.partition(".")[0] for name in done.stderr.split()}
    heavy = {"hydra", "omegaconf", "mlx", "numpy", "mlflow", "yaml", "annotated_types", "psutil"}
    assert not modules & heavy


HELLO = '"""Says hello."""\n\n\ndef hello(*names):\n    print("hello", *names)\n    return 7\n'


@pytest.fixture
def extension(tmp_path, monkeypatch):
    """The folder of the commands of an extension, in a package without other commands."""
    folder = tmp_path / "mlxlab" / "extensions" / "greeting" / "commands"
    folder.mkdir(parents=True)
    monkeypatch.setattr(dispatcher, "PACKAGE", tmp_path / "mlxlab")
    monkeypatch.setattr(mlxlab.extensions, "__path__", [str(folder.parents[1])])
    return folder


def test_a_command_of_an_extension_is_found_by_its_name(extension):
    (extension / "hello.py").write_text(HELLO)
    (extension / "helper.py").write_text('"""Is no command."""\n')
    assert dispatcher.subcommands() == {"hello": "Says hello."}
    assert dispatcher.command_module("hello") == "mlxlab.extensions.greeting.commands.hello"
    core = extension.parents[2] / "cli"
    core.mkdir()
    (core / "hello.py").write_text(HELLO)
    assert dispatcher.command_module("hello") == "mlxlab.cli.hello", "no extension replaces it"
