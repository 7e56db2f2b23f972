"""Ctrl-C while a command is being imported ends without a traceback, by whichever of its names it was started."""

import builtins
import runpy

import pytest

from mlxlab.cli import command
from mlxlab.cli import main as commands
from support.processes import ROOT

FILES = [ROOT / "scripts" / "train.py", ROOT / "src" / "mlxlab" / "__main__.py"]


def interrupt(*args):
    raise KeyboardInterrupt


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_script_exits_with_130(file, monkeypatch):
    load = builtins.__import__

    def load_other(name, *args):
        return (interrupt if "mlxlab" in name else load)(name, *args)

    monkeypatch.setattr(builtins, "__import__", load_other)
    monkeypatch.setenv("PYTHONPATH", "")  # which train.py sets
    monkeypatch.setattr("sys.path", [])
    with pytest.raises((SystemExit, KeyboardInterrupt)) as stop:  # The latter would end pytest.
        runpy.run_path(str(file), run_name="__main__")
    assert repr(stop.value) == "SystemExit(130)"


def test_the_installed_command_exits_with_130(monkeypatch, capsys):
    monkeypatch.setattr(command.importlib, "import_module", interrupt)
    with pytest.raises((SystemExit, KeyboardInterrupt)) as stop:
        raise SystemExit(commands.main(["info"]))
    assert repr(stop.value) == "SystemExit(130)"
    assert capsys.readouterr().err == "interrupted\n"
