"""What `mlxlab` prints without arguments: the first commands, all commands by topic, where to read on."""

from collections.abc import Mapping
from itertools import chain

from mlxlab import __version__, terminal
from mlxlab.terminal.tables import hang

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
    "Train": ("train", "launch", "lr_find", "crossvalidate", "trial", "info"),
    "Use a trained model": ("evaluate", "predict", "generate", "embed", "export"),
    "Look back": ("runs", "report", "compare", "registry", "ui"),
    "Check": ("doctor", "kernels", "verify", "reproduce", "schema"),
}
CLOSING = """`mlxlab COMMAND --help` lists the options of a command.
Documentation: README.md and docs/index.md in the source; `mkdocs build` makes a site of them."""
_COLUMN = 18  # The descriptions of commands begin here.


def overview_text(headings: Mapping[str, str]) -> str:
    """The text. Commands are never broken, so that they can be copied.

    Args:
        headings: what each command does.
    """
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
