"""Commands in messages are those that work where the program runs."""

import shlex
import shutil

import pytest

from mlxlab.config.hydra.job import parse
from mlxlab.terminal import program
from support.processes import ROOT


@pytest.mark.parametrize("extra", ["", "cloud"])
def test_an_extra_is_installed_from_the_checkout_where_there_is_one(extra, tmp_path, monkeypatch):
    brackets = f"[{extra}]" if extra else ""
    monkeypatch.chdir(ROOT)
    assert program.install_command(extra) == f"pip install -e '.{brackets}'"
    monkeypatch.chdir(tmp_path)
    assert program.install_command(extra) == f"pip install -e '{ROOT}{brackets}'"


def test_an_extra_of_an_installed_package_is_installed_by_its_name(tmp_path, monkeypatch):
    module = tmp_path / "site-packages" / "mlxlab" / "terminal" / "program.py"
    module.parent.mkdir(parents=True)
    shutil.copy(program.__file__, module)
    monkeypatch.setattr(program, "__file__", str(module))
    assert program.install_command("cloud") == "pip install 'mlxlab[cloud]'"


PLAIN = ["out/b x", "out/2026-11-24"]
QUOTED = ["out/b x,y", "out/it's", "out/a=b", "f(x)", "[1]", "a'b\\", "1", "true"]


@pytest.mark.parametrize("path", [*PLAIN, *QUOTED])
def test_the_folder_in_the_command_that_continues_a_run_is_the_text_that_the_program_reads(path):
    [override, _] = shlex.split(program.resume_command(path))[-2:]
    parsed, issues = parse([override], multirun=False)
    assert (issues, parsed[override].value()) == ([], path)
    assert (override == f"hydra.run.dir={path}") == (path in PLAIN)
