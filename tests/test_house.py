"""The order of the house: who may import whom, how large a room may be, and that the linters agree."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "mlxlab"
FILES = sorted(PACKAGE.rglob("*.py"))

ANYONE = {"backend", "errors", "bounds"}
ROOMS = {
    "models": set(),
    "data": set(),
    "checkpoint": set(),
    "tracking": set(),
    "cloud": set(),
    "config": set(),
    "backend": set(),
    "errors": set(),
    "bounds": set(),
    "training": {"models", "data", "checkpoint", "tracking"},
    "callbacks": {"models", "data", "checkpoint", "training", "cloud"},
    "inference": {"models", "data", "checkpoint", "tracking", "training", "cloud", "config"},
    "sweep": {"tracking", "config"},
    "assembly": {"models", "data", "config"},
    "company": {"checkpoint", "training"},
    "teaching": {"models", "data", "tracking", "training", "inference", "config"},
    "rounds": {"models", "tracking", "training", "inference", "config", "assembly", "teaching"},
    "replay": {"models", "data", "checkpoint", "tracking", "training", "callbacks", "config", "assembly", "teaching"},
    "experiment": {
        "models",
        "data",
        "checkpoint",
        "tracking",
        "training",
        "callbacks",
        "inference",
        "cloud",
        "config",
        "assembly",
        "teaching",
        "rounds",
        "company",
    },
}
OUTSIDE = {  # who may import it
    "hydra": {"config", "sweep", "commands"},
    "omegaconf": {"config", "sweep", "commands", "experiment", "company", "rounds", "benchmark"},
    "mlflow": {"tracking", "served"},  # inference/served.py is run by MLflow alone
    "mlx": {
        "backend",
        "models",
        "training",
        "callbacks",
        "checkpoint",
        "inference",
        "assembly",
        "teaching",
        "experiment",
        "commands",
        "replay",
        "benchmark",
    },
}


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_room_imports_only_what_it_may(file):
    room = room_of(file)
    for name in imports(file):
        parts = name.split(".")
        if parts[0] == "mlxlab" and len(parts) > 1 and room in ROOMS and parts[1] not in ("__version__",):
            assert parts[1] in ROOMS[room] | ANYONE | {room}, f"{room} imports {name}"
        if parts[0] in OUTSIDE:
            allowed = OUTSIDE[parts[0]]
            assert room in allowed or file.stem in allowed, f"{room} imports {name}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_room_is_one_idea(file):
    assert len(file.read_text().splitlines()) <= 250
    assert file.stem not in ("utils", "util", "helpers", "base", "common", "misc", "manager", "factory")
    if file.name != "__init__.py":
        assert ast.get_docstring(ast.parse(file.read_text())), "a module has a heading"


def test_every_file_is_ascii():
    for file in [*FILES, *(ROOT / "conf").rglob("*.yaml"), *(ROOT / "scripts").glob("*.py")]:
        assert file.read_text().isascii(), file


@pytest.mark.parametrize("words", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]], ids=" ".join)
def test_the_linters_agree(words):
    done = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_scripts_hold_no_logic():
    for file in (ROOT / "scripts").glob("*.py"):
        tree = ast.parse(file.read_text())
        assert not any(isinstance(node, ast.FunctionDef | ast.ClassDef | ast.For) for node in ast.walk(tree)), file
        assert len(file.read_text().splitlines()) <= 25, file


def test_scripts_run_as_the_readme_writes_them():
    for file in (ROOT / "scripts").glob("*.py"):
        assert os.access(file, os.X_OK), file
        assert file.read_text().startswith("#!/usr/bin/env python3\n"), file


def test_continuous_integration_runs_the_readme_command():
    readme = (ROOT / "README.md").read_text()
    lines = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if "pip install" in line]
    assert lines
    assert all(line in readme for line in lines)
