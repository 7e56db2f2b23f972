"""Runs the commands of the projects in examples/ as their users do: `mlxlab` and `python` on PATH, in a new folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

from support.processes import ROOT, environment

EXAMPLES = ROOT / "examples"


def programs(folder: Path, *names: str) -> str:
    """A PATH that begins with `mlxlab`, `python` and empty programs of these names, in `folder`."""
    folder.mkdir()
    commands = dict.fromkeys(names, "exit 0")
    commands["python"] = f'exec {sys.executable} "$@"'
    commands["mlxlab"] = f'exec {sys.executable} -m mlxlab "$@"'
    for name, command in commands.items():
        (folder / name).write_text(f"#!/bin/sh\n{command}\n")
        (folder / name).chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


def install(package: Path, folder: Path) -> str:
    """Installs a package into a folder; returns a PYTHONPATH with it and mlxlab."""
    options = "-q --no-deps --no-index --no-build-isolation --disable-pip-version-check"
    shell(f"{sys.executable} -m pip install {options} --target . {package}", folder)
    return f"{folder}{os.pathsep}{ROOT / 'src'}"


def shell_lines(readme: Path) -> list[str]:
    """The commands in the `sh` blocks of a README."""
    blocks = re.findall(r"```sh\n(.*?)```", readme.read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def shell(script: str, folder: Path, **variables: str) -> str:
    """What a script of bash prints, which has to succeed."""
    variables.setdefault("PYTHONPATH", str(ROOT / "src"))
    command = ["bash", "-euo", "pipefail", "-c", script]
    output = {"capture_output": True, "text": True, "check": False}
    done = subprocess.run(command, cwd=folder, env=environment(**variables), **output)
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout
