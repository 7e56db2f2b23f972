"""Installs the wheel on each supported version of Python, and trains, predicts and reports outside the checkout.

    python -m tests.wheel_versions [only=3.11,3.13]

The wheel is built by `python -m hatchling build`, installed with the extra `cpu` in a new environment, used in an empty
folder, and removed afterwards. All versions must end in the same weights. Interpreters are those on PATH and those of
pyenv. Needs a package index, and about two minutes for each version.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tests.extras import ROOT, call, choose, run_program, seconds

from mlxlab.errors import InputNotFoundError
from mlxlab.terminal.tables import markdown_table

TRAIN = ("train", "experiment=quick", "hydra.run.dir=quick")
COMMANDS = (
    ("predict", "run=quick", "input=test", "output=predictions.csv"),
    ("report", "quick", "out=report.html"),
)
RESULTS = ("quick/summary.md", "predictions.csv", "report.html")


def supported_versions() -> list[str]:
    """Those of the classifiers in pyproject.toml, such as 3.11."""
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    return re.findall(r"Programming Language :: Python :: (3\.\d+)", "\n".join(classifiers))


def find_python(version: str) -> Path:
    """An interpreter of this version, on PATH or of pyenv.

    Raises:
        InputNotFoundError: there is none.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    on_path = shutil.which(f"python{version}")
    candidates = [sys.executable, on_path, *sorted(pyenv.glob(f"versions/{version}.*/bin/python"))]
    for candidate in filter(None, candidates):
        done = subprocess.run([candidate, "--version"], capture_output=True, text=True, check=False)
        if done.stdout.startswith(f"Python {version}."):
            return Path(candidate)
    raise InputNotFoundError(f"Python {version}: no python{version} on PATH or in {pyenv}")


def check_versions(only: str | None = None) -> int:
    """Prints a table; returns 1 if the versions end in different weights, else 0.

    Args:
        only: some versions, separated by commas; null takes all.
    """
    pythons = {version: find_python(version) for version in choose(only, supported_versions())}
    with tempfile.TemporaryDirectory(prefix="mlxlab-wheel-") as folder:
        call("build", sys.executable, "-m", "hatchling", "build", "-d", folder)
        (wheel,) = Path(folder).glob("*.whl")
        rows = [_check(each, pythons[each], wheel, Path(folder) / each) for each in pythons]
    print(markdown_table(["Python", "installed in", "quick experiment", "final state"], rows))
    return 0 if len({final_state for *_, final_state in rows}) == 1 else 1


def _check(version: str, python: Path, wheel: Path, folder: Path) -> list[str]:
    """A row of the table."""
    env, empty = folder / "env", folder / "empty"
    call(f"{version}: environment", python, "-m", "venv", env)
    empty.mkdir()
    pip = [env / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    install = [*pip, "install", f"{wheel}[cpu]"]
    installing = seconds(partial(call, f"{version}: pip install", *install, folder=empty))
    call(f"{version}: pip check", *pip, "check")
    program = env / "bin" / "mlxlab"
    output: list[str] = []
    training = seconds(
        lambda: output.append(call(f"{version}: train", program, *TRAIN, folder=empty))
    )
    for command in COMMANDS:
        call(f"{version}: {command[0]}", program, *command, folder=empty)
    for name in RESULTS:
        if not (empty / name).is_file():
            raise InputNotFoundError(f"{version}: {name} was not written")
    (final_state,) = re.findall(r"^final_state=(\w+)", output[0], re.MULTILINE)
    shutil.rmtree(folder)
    return [version, f"{installing:.0f} s", f"{training:.0f} s", final_state[:16]]


def main(argv: Sequence[str] | None = None) -> int:
    return run_program(argv, "tests.wheel_versions.check_versions", __doc__)


if __name__ == "__main__":
    sys.exit(main())
