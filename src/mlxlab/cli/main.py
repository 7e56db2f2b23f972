"""`mlxlab VERB ...`: one module of this package per verb, each with a `main(argv)`."""

import importlib
import os
import re
import sys
from pathlib import Path

from mlxlab import __version__
from mlxlab.config.suggest import suggestion
from mlxlab.errors import ConfigError

_FOOTER = (
    "`mlxlab VERB --help` lists the options of a verb.",
    '`eval "$(mlxlab -sc install=bash)"` completes verbs, and the groups and keys of `train` (also zsh, fish).',
)


def main(argv: list[str] | None = None) -> int:
    """Runs a verb and returns its exit code; that of an unknown verb is 2."""
    verb, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if verb in ("-h", "--help", "help"):
        print(_help())
        return 0
    if verb == "--version":
        print(f"mlxlab {__version__}")
        return 0
    if verb in ("-sc", "--shell-completion"):
        return _complete(rest)
    if verb not in verbs():
        print(f"{verb}: unknown verb{suggestion(verb, verbs())}", file=sys.stderr)
        return ConfigError.exit_code
    program = importlib.import_module(f"mlxlab.cli.{verb}")
    if argv is not None:
        return int(program.main(rest))
    sys.argv[1:] = rest  # it owns the process, as a script does
    return int(program.main())


def verbs() -> list[str]:
    """The modules of this package that define `main`."""
    files = [file for file in Path(__file__).parent.glob("*.py") if file.stem != "main"]
    return sorted(file.stem for file in files if re.search(r"(?m)^(def main\(|main = )", file.read_text("utf-8")))


def _complete(args: list[str]) -> int:
    """Prints the script to `eval` (`install=bash`), or what can follow the line typed so far (`query=bash`).

    Hydra's script runs `mlxlab -sc query=bash` with the line in COMP_LINE; to Hydra, `mlxlab train` is the program.
    """
    from mlxlab.cli import train

    if any(arg.startswith("query=") for arg in args):
        verb, *rest = os.environ.get("COMP_LINE", "").split(" ")[1:] or [""]
        if not rest:
            print(" ".join(name for name in verbs() if name.startswith(verb)))
        if not rest or verb != "train":
            return 0
        os.environ["COMP_LINE"] = " ".join(["mlxlab", *rest])
    return train.main(["-sc", *args])


def _help() -> str:
    lines = [f"    {verb:<15} {_heading(verb)}" for verb in verbs()]
    return "\n".join(["mlxlab VERB ...", "", *lines, "", *_FOOTER])


def _heading(verb: str) -> str:
    """The first line of a verb's docstring, read without importing it."""
    source = Path(__file__).with_name(f"{verb}.py").read_text(encoding="utf-8")
    return source.lstrip().splitlines()[0].strip('"')
