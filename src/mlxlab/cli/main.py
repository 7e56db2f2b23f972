"""`mlxlab VERB ...`: one module of this package per verb, each with a `main(argv)`."""

import importlib
import os
import re
import sys
from pathlib import Path

from mlxlab import __version__
from mlxlab.config.suggest import suggestion
from mlxlab.errors import ConfigError

_FOOTER = """
`mlxlab VERB --help` lists the options of a verb.
`eval "$(mlxlab -sc install=bash)"` completes verbs, and the groups and keys of `train` (also zsh, fish)."""


def main(argv: list[str] | None = None) -> int:
    """Runs a verb and returns its exit code; that of an unknown verb is 2."""
    verb, *args = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if verb in ("-h", "--help", "help"):
        lines = [f"    {name:<15} {heading}" for name, heading in verbs().items()]
        print("\n".join(["mlxlab VERB ...", "", *lines, _FOOTER]))
        return 0
    if verb == "--version":
        print(f"mlxlab {__version__}")
        return 0
    if verb in ("-sc", "--shell-completion"):
        return _complete(args)
    if verb not in verbs():
        print(f"{verb}: unknown verb{suggestion(verb, verbs())}", file=sys.stderr)
        return ConfigError.exit_code
    if argv is None:
        sys.argv[1:] = args  # the verb owns the process, as a script does
    return int(importlib.import_module(f"mlxlab.cli.{verb}").main(None if argv is None else args))


def verbs() -> dict[str, str]:
    """The modules of this package that define `main`, with the first line of each, read without importing it."""
    files = sorted(file for file in Path(__file__).parent.glob("*.py") if file.stem != "main")
    texts = {file.stem: file.read_text(encoding="utf-8") for file in files}
    is_verb = re.compile(r"^(def main\(|main = )", re.MULTILINE)
    return {verb: text.splitlines()[0].strip('"') for verb, text in texts.items() if is_verb.search(text)}


def _complete(args: list[str]) -> int:
    """Prints the script to `eval` (`install=bash`), or what can follow the line typed so far (`query=bash`).

    Hydra's script runs `mlxlab -sc query=bash` with the line in COMP_LINE; to Hydra, `mlxlab train` is the program.
    """
    from mlxlab.cli import train

    if any(arg.startswith("query=") for arg in args):
        verb, *typed = os.environ.get("COMP_LINE", "").split(" ")[1:] or [""]
        if not typed:
            print(" ".join(name for name in verbs() if name.startswith(verb)))
        if not typed or verb != "train":
            return 0
        os.environ["COMP_LINE"] = " ".join(["mlxlab", *typed])
    return train.main(["-sc", *args])
