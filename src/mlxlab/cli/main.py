"""`mlxlab SUBCOMMAND ...`: one module of this package per subcommand, each with a `main(argv)`."""

import importlib
import os
import re
import sys
from pathlib import Path

from mlxlab import __version__
from mlxlab.config.suggest import suggestion
from mlxlab.errors import ConfigError

_FOOTER = """
`mlxlab SUBCOMMAND --help` lists the options of a subcommand.
`eval "$(mlxlab -sc install=bash)"` completes subcommands, and the groups and keys of `train` (also zsh, fish)."""


def main(argv: list[str] | None = None) -> int:
    """Runs a subcommand and returns its exit code; that of an unknown one is 2."""
    name, *args = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help", "help"):
        lines = [f"    {name:<15} {heading}" for name, heading in subcommands().items()]
        print("\n".join(["mlxlab SUBCOMMAND ...", "", *lines, _FOOTER]))
        return 0
    if name == "--version":
        print(f"mlxlab {__version__}")
        return 0
    if name in ("-sc", "--shell-completion"):
        return _complete(args)
    if name not in subcommands():
        print(f"{name}: unknown subcommand{suggestion(name, subcommands())}", file=sys.stderr)
        return ConfigError.exit_code
    if argv is None:
        sys.argv[1:] = args  # the subcommand owns the process, as a script does
    return int(importlib.import_module(f"mlxlab.cli.{name}").main(None if argv is None else args))


def subcommands() -> dict[str, str]:
    """The modules of this package that define `main`, with the first line of each, read without importing it."""
    folder = Path(__file__).parent
    files = {file.stem: file for file in folder.glob("*.py") if file.stem != "main"}
    files |= {file.parent.name: file for file in folder.glob("*/__init__.py")}
    texts = {name: file.read_text(encoding="utf-8") for name, file in sorted(files.items())}
    is_subcommand = re.compile(r"^(def main\(|main = )", re.MULTILINE)
    return {name: text.splitlines()[0].strip('"') for name, text in texts.items() if is_subcommand.search(text)}


def _complete(args: list[str]) -> int:
    """Prints the script to `eval` (`install=bash`), or what can follow the line typed so far (`query=bash`).

    Hydra's script runs `mlxlab -sc query=bash` with the line in COMP_LINE; to Hydra, `mlxlab train` is the program.
    """
    from mlxlab.cli import train

    if any(arg.startswith("query=") for arg in args):
        start, *typed = os.environ.get("COMP_LINE", "").split(" ")[1:] or [""]
        if not typed:
            print(" ".join(name for name in subcommands() if name.startswith(start)))
        if not typed or start != "train":
            return 0
        os.environ["COMP_LINE"] = " ".join(["mlxlab", *typed])
    return train.main(["-sc", *args])
