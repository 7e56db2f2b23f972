"""Templates of tables: literal text with `{column}` placeholders."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mlxlab.errors import ConfigError

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


class Template(NamedTuple):
    """The column of each placeholder, and the text before each of them and after the last one."""

    literals: Sequence[str]
    fields: Sequence[str]


def default_template(columns: Sequence[str]) -> Template:
    """`column: value` for each column, with commas between them."""
    starts = [f"{', ' if position else ''}{name}: " for position, name in enumerate(columns)]
    return Template([*starts, ""], columns)


def parse_template(text: str, reserved: Mapping[str, str]) -> Template:
    """The parts of a template; `{{` and `}}` stand for braces.

    Args:
        reserved: columns that must not be read, and what each is.

    Raises:
        ConfigError: a placeholder names a reserved column, a brace is unmatched, or there is no placeholder.
    """
    literals, fields, start = [""], list[str](), 0
    for match in _TOKEN.finditer(text):
        literals[-1] += text[start : match.start()]
        start, name = match.end(), match.group(1)
        if match.group() in ("{{", "}}"):
            literals[-1] += match.group()[0]
        elif name is None:
            expected = "a placeholder such as {column}, or a doubled brace for the brace itself"
            raise ConfigError(
                f"data.template: {match.group()!r} at character {match.start() + 1}: expected {expected}"
            )
        else:
            refuse_reserved(name, reserved, f"data.template: {{{name}}}")
            fields.append(name)
            literals.append("")
    literals[-1] += text[start:]
    if not fields:
        raise ConfigError(
            "data.template: expected at least one placeholder such as {column}, got none"
        )
    return Template(literals, fields)


def refuse_reserved(name: str, reserved: Mapping[str, str], where: str) -> None:
    """Raises ConfigError unless the column `name` may be read."""
    if name in reserved:
        raise ConfigError(f"{where} is {reserved[name]}: the model must not read it")
