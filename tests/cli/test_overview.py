"""`mlxlab` without arguments, and the commands of extensions, which are found by the names of their modules."""

import shlex
import subprocess
import sys

import pytest

import mlxlab.extensions
from mlxlab.cli import main as dispatcher
from mlxlab.cli.main import FIRST, TOPICS, command_module, subcommands
from mlxlab.config.hydra.compose import compose
from support.processes import environment
from support.pseudo_terminal import run_in_terminal

PROBE = (
    "import sys; from mlxlab.cli.main import main; main([]); print(*sys.modules, file=sys.stderr)"
)


def test_every_command_is_in_one_topic():
    core = [name for name in subcommands() if command_module(name).startswith("mlxlab.cli.")]
    assert sorted(name for names in TOPICS.values() for name in names) == sorted(core)


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


def test_the_first_commands_are_valid():
    for line in FIRST:
        command, *args = shlex.split(line)
        assert command in subcommands()
        if command == "train" and "resume=auto" not in args:
            compose(args)


def test_the_overview_fits_a_terminal():
    screen = run_in_terminal(["-m", "mlxlab"], 80)
    assert screen.code == 0
    assert "\x1b[1mStart\x1b[0m" in screen.lines
    described = [line for line in screen.lines if not line.startswith("  mlxlab")]
    assert max(map(len, described)) <= 80


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


def test_the_overview_lists_the_commands_of_extensions(monkeypatch):
    headings = {**dispatcher.subcommands(), "hello": "Says hello."}
    monkeypatch.setattr(dispatcher, "subcommands", lambda: headings)
    text = dispatcher.overview_text()
    assert "  hello           Says hello." in text.partition("Extensions")[2]


def test_an_extension_cannot_replace_a_command_of_the_core(extension):
    core = extension.parents[2] / "cli"
    core.mkdir()
    for folder in (extension, core):
        (folder / "hello.py").write_text(HELLO)
    assert dispatcher.command_module("hello") == "mlxlab.cli.hello"


def test_a_removed_extension_has_no_command(extension, capsys):
    assert dispatcher.main(["hello"]) == 2
    assert capsys.readouterr().err.startswith("hello: unknown subcommand")
