"""What `mlxlab` prints without arguments: the first commands, all commands by topic, where to read on."""

from collections.abc import Iterator, Mapping

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
    "Check": ("doctor", "kernels", "verify", "reproduce"),
    "Set up": ("migrate",),
}
CLOSING = """`mlxlab COMMAND --help` lists the options of a command.
Documentation: README.md and docs/index.md in the source; `mkdocs build` makes a site of them."""
_COLUMN = 18  # at which the descriptions of commands begin


def overview_text(headings: Mapping[str, str]) -> str:
    """The text. Commands are never broken, so that they can be copied.

    Args:
        headings: what each command does.
    """
    width = terminal.columns() or 120
    sections = {"Start": _first(width)}
    of_extensions = sorted(headings.keys() - {name for names in TOPICS.values() for name in names})
    for topic, names in {**TOPICS, "Extensions": of_extensions}.items():
        if names:
            sections[topic] = (
                line for name in names for line in hang(f"  {name}", headings[name], _COLUMN, width)
            )
    bodies = [[terminal.styled(title, "bold"), *lines] for title, lines in sections.items()]
    closing = [line for text in CLOSING.splitlines() for line in hang("", text, 0, width)]
    return "\n\n".join("\n".join(lines) for lines in [hang("", TITLE, 0, width), *bodies, closing])


def _first(width: int) -> Iterator[str]:
    for command, text in FIRST.items():
        yield from hang(f"  # {text}", "", 0, width)
        yield f"  mlxlab {command}"
