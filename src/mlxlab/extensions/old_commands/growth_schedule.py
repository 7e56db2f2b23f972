"""Translates the growth schedules of the GPT trainer."""

import ast
from pathlib import Path
from textwrap import indent
from typing import Any, Protocol

from mlxlab.config.hydra.yaml_limits import parse_yaml
from mlxlab.errors import ConfigError, DataError
from mlxlab.files.untrusted import read_text
from mlxlab.nearest import suggestion


class Command(Protocol):
    """A command that is being translated."""

    values: dict[str, str]

    def expand(self, name: str, flag: dict[str, Any], value: str) -> list[str]: ...

    def fill(self, template: str, groups: list[str]) -> str: ...


def growth_override(schedule: str, table: dict[str, Any], command: Command) -> str:
    """The override for the operations of a schedule.

    Args:
        schedule: a list in Python, or a JSON or YAML file with one.
        table: what the old operations stand for.
        command: has the values of the flags, which operations change for later ones.
    """
    operations: list[str] = []
    try:
        for entry in read_schedule(schedule):
            name = entry["name"]
            if name not in table:
                raise ConfigError(f"{name}: unknown operation{suggestion(name, table)}")
            value = as_text(entry["value"])
            command.values["value"] = value
            if "sets" in table[name]:
                changed, _, template = table[name]["sets"].partition("=")
                command.values[changed] = command.fill(template, [value])
            limits = {"metric_below": entry["trigger_loss"], "or_steps": entry["max_wait_iters"]}
            limits = {key: limit for key, limit in limits.items() if limit is not None}
            options_of_entry = command.expand(name, table[name], value)
            for options in options_of_entry:
                limits = limits or {"or_steps": 1}
                when = ", ".join(f"{key}: {limit}" for key, limit in limits.items())
                operations.append(f"id: {name}_{len(operations) + 1}, {options}, when: {{{when}}}")
                limits["or_steps"] = 1  # Further operations of an entry follow at once.
            if entry["reevaluate"] and options_of_entry:
                operations[-1] += ", then: evaluate"
    except (LookupError, TypeError, ValueError, SyntaxError) as error:
        raise DataError(
            f"growth schedule: malformed entry {len(operations) + 1} ({error})"
        ) from None
    braced = ", ".join(f"{{{operation}}}" for operation in operations)
    return f"callbacks.growth.operations=[{braced}]"


def read_schedule(schedule: str) -> Any:
    if schedule.startswith("["):
        return ast.literal_eval(schedule)
    path = Path(schedule)
    text = indent(read_text(path, max_bytes=2**20), "  ")
    return parse_yaml(path, f"schedule:\n{text}").values["schedule"]


def as_text(value: object) -> str:
    """A value of a file as it stands on a command line."""
    if isinstance(value, list | tuple) and not any(isinstance(each, dict) for each in value):
        return " ".join(map(str, value))
    return str(value)
