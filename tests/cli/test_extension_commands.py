"""Commands of extensions are found by the names of their modules."""

import pytest

import mlxlab.extensions
from mlxlab.cli import main as dispatcher

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
