"""The end of a command."""

import gc
import subprocess
import sys

import pytest

from mlxlab.cli.app import run_subcommand
from support.processes import ROOT


@pytest.mark.parametrize("owns_process", [True, False])
def test_a_process_that_ends_does_not_search_its_garbage(owns_process, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["command", "x"])
    before = gc.get_freeze_count()
    assert run_subcommand(None if owns_process else ["x"], act=len, show_help=str) == 1
    frozen = gc.get_freeze_count() > before
    gc.unfreeze()
    assert frozen == owns_process


def test_another_python_than_that_of_the_installation_is_one_line():
    script = ROOT / "scripts" / "train.py"
    command = [sys.executable, "-S", script, "experiment=titanic"]  # -S: without packages
    ended = subprocess.run(command, env={}, capture_output=True, text=True, check=False)
    assert ended.returncode == 69
    (line,) = ended.stderr.splitlines()
    assert "has no package hydra" in line
    assert ". .venv/bin/activate" in line
