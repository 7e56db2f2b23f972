"""Installs each optional extra alone in a new environment, runs the quick experiment there, and the tests that need it.

    python -m tests.extras [only=cloud,hub]

An environment holds `.[cpu,EXTRA]`, pytest and pytest-xdist, nothing else, and is removed afterwards. A test that is
skipped for want of the extra is an error; other skips are listed. Needs the network, and some minutes for each extra.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
import xml.etree.ElementTree
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

from mlxlab.cli.app import run_subcommand
from mlxlab.cli.command import parse_args
from mlxlab.errors import ConfigError, ServiceUnavailableError
from mlxlab.terminal.nearest import suggestion
from mlxlab.terminal.tables import markdown_table

ROOT = Path(__file__).resolve().parents[1]
MODULES = {  # extra: what its tests import
    "cloud": ("obstore",),
    "docs": ("mkdocs",),
    "hub": ("datasets", "huggingface_hub"),
    "onnx": ("onnx",),
    "sweep": ("optuna",),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
    "zoo": ("mlx_lm",),
}
# The backend of MLX, tools of the tests, data of benchmarks.
NO_FEATURE = {"cpu", "cuda", "dev", "interop", "tables"}
QUICK = ("experiment=quick", "hydra.run.dir=quick")
TOOLS = ("pytest", "pytest-xdist")  # the options of pytest in pyproject.toml name both


def feature_extras() -> set[str]:
    """The extras of pyproject.toml that add a feature."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return set(project["optional-dependencies"]) - NO_FEATURE


def files_using(extra: str) -> list[str]:
    """Tests that import a module of the extra, or skip without it, and those that its other versions may break."""
    names = "|".join(MODULES[extra])
    statement = rf"^\s*(?:.*importorskip\(\s*[\"']|import |from )(?:{names})\b"
    imports = re.compile(statement, re.MULTILINE)
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(path.relative_to(ROOT)) for path in files if imports.search(path.read_text())]


@dataclass(frozen=True)
class Outcome:
    """What pytest reports: number of tests that passed, messages of those that failed, reasons of those skipped."""

    num_passed: int
    failures: list[str]
    skips: Counter[str]


def read_report(path: Path) -> Outcome:
    """A report in JUnit's XML."""
    cases = list(xml.etree.ElementTree.parse(path).iter("testcase"))
    failures, skips = [], Counter[str]()
    for case in cases:
        if any(child.tag in ("failure", "error") for child in case):
            failures.append(f"{case.get('classname')}::{case.get('name')}")
        elif (skipped := case.find("skipped")) is not None:
            skips[skipped.get("message", "")] += 1
    return Outcome(len(cases) - len(failures) - skips.total(), failures, skips)


def faults(extra: str, result: Outcome) -> list[str]:
    """Why the tests of an installed extra do not count as passed."""
    missing = re.compile(rf"\b(?:extra {extra}|{'|'.join(MODULES[extra])})\b|\[{extra}\]")
    found = list(result.failures)
    for reason in filter(missing.search, result.skips):
        found.append(f"skipped with the extra installed: {reason}")
    if not result.num_passed:
        found.append("no test ran")
    return found


def check_extras(only: str | None = None) -> int:
    """Prints a table; returns 1 if something failed, else 0.

    Args:
        only: some extras, separated by commas; null takes all.
    """
    rows, problems = [], []
    for extra in choose(only, sorted(feature_extras())):
        with tempfile.TemporaryDirectory(prefix=f"mlxlab-{extra}-") as folder:
            row, found = _check(extra, Path(folder))
        rows.append(row)
        problems += [f"{extra}: {fault}" for fault in found]
    head = ["extra", "installed in", "quick experiment", "tests passed", "failed", "skipped"]
    print(markdown_table(head, rows))
    print("\n".join(problems), file=sys.stderr)
    return 1 if problems else 0


def _check(extra: str, folder: Path) -> tuple[list[str], list[str]]:
    """A row of the table, and faults."""
    python = folder / "env" / "bin" / "python"
    venv.create(folder / "env", with_pip=True)
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    install = [*pip, "install", "--no-compile", f"{ROOT}[cpu,{extra}]", *TOOLS]
    installing = seconds(partial(call, f"{extra}: pip install", *install))
    call(f"{extra}: pip check", *pip, "check")
    command = [python, "-m", "mlxlab", "train", *QUICK]
    training = seconds(partial(call, f"{extra}: quick experiment", *command, folder=folder))
    report = folder / "report.xml"
    options = ["-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    options.append(f"--basetemp={folder / 'tests'}")
    subprocess.run([python, "-m", "pytest", *options, *files_using(extra)], cwd=ROOT, check=False)
    result = read_report(report)
    for reason, count in result.skips.items():
        print(f"{extra}: {count} skipped: {reason}", file=sys.stderr)
    counts = (result.num_passed, len(result.failures), result.skips.total())
    row = [extra, f"{installing:.0f} s", f"{training:.0f} s", *map(str, counts)]
    return row, faults(extra, result)


def choose(only: str | None, known: list[str]) -> list[str]:
    """The known names, or those that `only` lists."""
    names = only.split(",") if only else known
    for name in names:
        if name not in known:
            raise ConfigError(f"only={name}: expected {', '.join(known)}{suggestion(name, known)}")
    return names


def seconds(action: Callable[[], object]) -> float:
    """Duration of a call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def call(title: str, *command: str | Path, folder: Path = ROOT) -> str:
    """What the command prints, without PYTHONPATH; ServiceUnavailableError with the end of its output if it fails."""
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=folder, env=clean, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ServiceUnavailableError(
            f"{title}: exit code {done.returncode}\n{(done.stdout + done.stderr)[-2000:]}"
        )
    return done.stdout


def run_program(argv: Sequence[str] | None, target: str, page: str) -> int:
    """Calls a function by its dotted name with the options of a command line; returns the exit code."""
    module, _, name = target.rpartition(".")

    def act(args: list[str]) -> int:
        _, options = parse_args(args, target)
        return int(getattr(import_module(module), name)(**options))

    return run_subcommand(argv, act=act, show_help=lambda _: page.strip(), needs_args=False)


def main(argv: Sequence[str] | None = None) -> int:
    return run_program(argv, "tests.extras.check_extras", __doc__)


if __name__ == "__main__":
    sys.exit(main())
