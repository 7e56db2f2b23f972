"""`mlxlab COMMAND ...`: one module per command, each with a `main(argv)`.

The modules stand in this package and in `extensions/*/commands/`.
"""

import importlib
import os
import re
import signal
import sys
from pathlib import Path

from mlxlab import __version__
from mlxlab.errors import ConfigError, ServiceUnavailableError
from mlxlab.nearest import suggestion

PACKAGE = Path(__file__).parents[1]


def main(argv: list[str] | None = None) -> int:
    """Runs a command and returns its exit code; that of an unknown one is 2."""
    try:
        return _run(argv)
    except KeyboardInterrupt:  # before the command runs, which says so itself
        return 128 + signal.SIGINT


def _run(argv: list[str] | None) -> int:
    name, *args = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help", "help"):
        return _print_overview()
    if name == "--version":
        print(f"mlxlab {__version__}")
        return 0
    if name not in subcommands():
        print(f"{name}: unknown subcommand{suggestion(name, subcommands())}", file=sys.stderr)
        return ConfigError.exit_code
    if argv is None:
        sys.argv[1:] = args  # the command owns the process, as a script does
    try:
        module = importlib.import_module(command_module(name))
    except ModuleNotFoundError as error:
        if (error.name or "mlxlab").partition(".")[0] == "mlxlab":
            raise
        print(
            f"{name}: the package {error.name} is not installed; mlxlab doctor says what is missing",
            file=sys.stderr,
        )
        return ServiceUnavailableError.exit_code
    return int(module.main(None if argv is None else args))


def subcommands() -> dict[str, str]:
    """The modules that define `main`, with the first line of each, read without importing it."""
    texts = {
        name: file.read_text(encoding="utf-8") for name, file in sorted(_command_files().items())
    }
    is_subcommand = re.compile(r"^(def main\(|main = )", re.MULTILINE)
    return {
        name: text.splitlines()[0].strip('"')
        for name, text in texts.items()
        if is_subcommand.search(text)
    }


def command_module(name: str) -> str:
    """The dotted name of the module of a command."""
    path = _command_files()[name].relative_to(PACKAGE.parent).with_suffix("")
    return ".".join(path.parts).removesuffix(".__init__")


def _command_files() -> dict[str, Path]:
    """The files of the commands by their names; an extension cannot replace one of this package."""
    files: dict[str, Path] = {}
    for folder in (*sorted(PACKAGE.glob("extensions/*/commands")), PACKAGE / "cli"):
        files |= {file.stem: file for file in folder.glob("*.py")}
        files |= {file.parent.name: file for file in folder.glob("*/__init__.py")}
    files.pop("main", None)
    return files


def _print_overview() -> int:
    from mlxlab.cli.overview import overview

    try:
        print(overview(subcommands()), flush=True)
    except BrokenPipeError:  # `mlxlab | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
