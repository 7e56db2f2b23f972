"""Completion of `python scripts/train.py` by Hydra's own script for bash."""

import os
import subprocess
import sys

import pytest

from mlxlab.cli import train
from support.processes import ROOT, environment

SCRIPT = """
    eval "$(python scripts/train.py -sc install=bash)"
    COMP_WORDS=($COMP_LINE) COMP_CWORD=2 COMP_POINT=${#COMP_LINE}
    hydra_bash_completion
    printf "%s\\n" "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("typed", "completions"),
    [
        ("trainer=", ["trainer=distill", "trainer=optimized", "trainer=simple"]),
        ("trainer.ep", ["trainer.epochs="]),
    ],
)
def test_bash_completes_groups_and_keys(typed, completions, tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    env = environment(PATH=path, COMP_LINE=f"python scripts/train.py {typed}")
    done = subprocess.run(
        ["bash", "-c", SCRIPT], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == completions


@pytest.mark.parametrize(
    "args", [[], ["nonsense"], ["query=csh"], ["install=bash", "query=bash"]], ids=" ".join
)
def test_a_wrong_request_for_completion_is_one_line(args, monkeypatch, capsys):
    monkeypatch.setenv("COMP_LINE", "train x")
    assert train.main(["-sc", *args]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
