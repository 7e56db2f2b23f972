"""`mlxlab COMMAND ...`: one module per command, which `command` runs; `train` has a `main(argv)` of its own.

The modules stand in this package and in `extensions/*/commands/`.
"""

import re
import signal
import sys
from itertools import chain
from pathlib import Path

from mlxlab import __version__, terminal
from mlxlab.errors import ConfigError
from mlxlab.terminal.nearest import suggestion
from mlxlab.terminal.tables import hang

PACKAGE = Path(__file__).parents[1]
NO_COMMANDS = ("app", "command", "main")
TITLE = f"mlxlab {__version__}: trains, distils and compares models with Apple MLX; resumes and tracks them exactly."
FIRST = {
    "train experiment=titanic hydra.run.dir=outputs/first": "train a classifier on the Titanic data",
    "train hydra.run.dir=outputs/first resume=auto": "continue it, if it was stopped or killed",
    "predict run=outputs/first input=test output=predictions.csv": "predict rows with it",
    "train data=text_classification data.source=my.csv data.text_column=TEXT data.target=LABEL": "your own data",
    "runs list": "all runs, with their metrics",
    "doctor": "check the installation",
}
TOPICS = {
    "Train": ("train", "launch", "crossvalidate", "info"),
    "Use a trained model": ("evaluate", "predict", "generate", "embed", "export"),
    "Look back": ("runs", "report", "compare", "registry", "ui"),
    "Check": ("doctor", "kernels", "verify", "reproduce", "schema"),
}
CLOSING = """`mlxlab COMMAND --help` lists the options of a command.
Documentation: README.md and docs/index.md in the source; `mkdocs build` makes a site of them."""
_COLUMN = 18  # The descriptions of commands begin here.


def main(argv: list[str] | None = None) -> int:
    """Runs a command and returns its exit code; that of an unknown one is 2."""
    try:
        return _run(argv)
    except KeyboardInterrupt:  # before the command runs, which says so itself
        return 128 + signal.SIGINT


def _run(argv: list[str] | None) -> int:
    name, *args = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help", "help"):
        from mlxlab.cli.app import run_subcommand

        return run_subcommand(
            [], act=lambda _: print(overview_text()), show_help=str, needs_args=False
        )
    if name == "--version":
        print(f"mlxlab {__version__}")
        return 0
    if name not in subcommands():
        print(f"{name}: unknown subcommand{suggestion(name, subcommands())}", file=sys.stderr)
        return ConfigError.exit_code
    if argv is None:
        sys.argv[1:] = args  # the command owns the process, as a script does
    else:
        argv = args
    if name == "train":
        from mlxlab.cli.train import main as train

        return train(argv)
    from mlxlab.cli.command import run_command

    return run_command(command_module(name), argv)


def subcommands() -> dict[str, str]:
    """The commands, with the first line of each module, which is not imported."""
    headings = {}
    for name, file in sorted(_command_files().items()):
        text = file.read_text(encoding="utf-8")
        is_command = re.search(rf"^(def {name}\(|ACTIONS = )", text, re.MULTILINE)
        if is_command or name == "train":
            headings[name] = text.splitlines()[0].strip('"')
    return headings


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
    return {name: file for name, file in files.items() if name not in NO_COMMANDS}


def overview_text() -> str:
    """The first commands, all commands by topic, where to read on. Commands are never broken: they can be copied."""
    headings = subcommands()
    width = terminal.columns() or 120
    start = [terminal.styled("Start", "bold")]
    for command, text in FIRST.items():
        start += [*hang(f"  # {text}", "", 0, width), f"  mlxlab {command}"]
    sections = [hang("", TITLE, 0, width), start]

    of_extensions = sorted(headings.keys() - set(chain.from_iterable(TOPICS.values())))
    for topic, names in {**TOPICS, "Extensions": of_extensions}.items():
        lines = [terminal.styled(topic, "bold")]
        for name in names:
            lines += hang(f"  {name}", headings[name], _COLUMN, width)
        if names:
            sections.append(lines)

    closing = []
    for text in CLOSING.splitlines():
        closing += hang("", text, 0, width)
    return "\n\n".join(map("\n".join, [*sections, closing]))
