"""A page for every command: its help text, and its options from the signatures of the functions that it calls."""

import importlib
import re
from collections.abc import Iterator
from textwrap import dedent

from documentation.tables import cell, code, key_table, table
from mlxlab.cli.app import CommandLine
from mlxlab.cli.args import option_help
from mlxlab.cli.main import command_module, subcommands
from mlxlab.cli.train import show_help

HEAD = """# Commands

`scripts/train.py` is `mlxlab train`. Arguments are `key=value`; `--key` is short for `key=true`, `--help` prints what these pages say.
All commands have the same [exit codes](../exit_codes.md).
"""


def command_pages() -> dict[str, str]:
    """Path below reference/commands -> text."""
    pages = {f"{name}.md": "\n\n".join(_page(name)) + "\n" for name in subcommands()}
    rows = [[f"[`{name}`]({name}.md)", cell(heading)] for name, heading in subcommands().items()]
    return {"index.md": f"{HEAD}\n{table(['command', 'what it does'], rows)}\n", **pages}


def _page(name: str) -> Iterator[str]:
    yield f"# {name}"
    module = importlib.import_module(command_module(name))
    command_lines = [value for value in vars(module).values() if isinstance(value, CommandLine)]
    if name == "train":
        yield from _train()
    elif not command_lines:
        yield as_markdown((module.__doc__ or "").strip())
    for command_line in command_lines:
        yield as_markdown((command_line.doc or "").strip())
        for subcommand, each in command_line.subcommands.items():
            rows = [row for target in each.targets for row in _options(target)]
            if rows:
                yield f"## Options of {name} {subcommand}".rstrip()
                yield key_table(rows, "option")


def _train() -> Iterator[str]:
    """The help of `train` without its groups and keys, which have pages of their own."""
    text = show_help([])
    yield as_markdown(text.partition("Groups (")[0])
    yield "All groups and keys are in the [reference of the configuration](../config/index.md)."
    for title, body in re.findall(r"(?m)^(Examples|Flags)\n((?: .*\n)+)", text):
        yield f"## {title}\n\n```text\n{body}```"
    yield text.rstrip().rpartition("\n")[2]


def _options(target: str) -> Iterator[list[str]]:
    for name, default, expected, description in option_help(target):
        yield [
            code(name),
            "*required*" if default is None else code(default),
            cell(expected),
            cell(description),
        ]


def as_markdown(text: str) -> str:
    """A help text as Markdown: paragraphs that are aligned in columns, or indented, stay as they are."""
    return "\n\n".join(map(_paragraph, re.split(r"\n{2,}", text.strip("\n"))))


def _paragraph(text: str) -> str:
    is_aligned = any(
        line.startswith(" ") or re.search(r"\S  +\S", line) for line in text.splitlines()
    )
    return f"```text\n{dedent(text)}\n```" if is_aligned else text.replace("<", "&lt;")
