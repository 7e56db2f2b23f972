"""What can follow a line that is being typed."""

import importlib
import os
from collections.abc import Iterator, Sequence
from typing import Literal, get_args, get_origin

from mlxlab.cli.app import CommandLine, Subcommand
from mlxlab.config.schema.signature import Key, alternatives, signature, unwrap

OF_TRAIN = ("train", "launch", "lr_find")  # they take the groups and keys of a config


def print_candidates(line: str, commands: Sequence[str]) -> int:
    """Prints what can follow `mlxlab ...`, separated by white space; those of a config by Hydra."""
    name, *typed = line.split(" ")[1:] or [""]
    if not typed:
        print(" ".join(command for command in commands if command.startswith(name)))
        return 0
    if name not in commands:
        return 0
    print(" ".join(each for each in _candidates(name, typed) if each.startswith(typed[-1])))
    if name not in OF_TRAIN:
        return 0
    from mlxlab.cli import train

    os.environ["COMP_LINE"] = " ".join(
        ["mlxlab", *typed]
    )  # to Hydra, `mlxlab train` is the program
    return train.main(["-sc", "query=bash"])


def _candidates(name: str, typed: list[str]) -> Iterator[str]:
    command_line = getattr(importlib.import_module(f"mlxlab.cli.{name}"), "main", None)
    if not isinstance(command_line, CommandLine):
        return
    subcommands, first = command_line.subcommands, typed[0]
    if "" in subcommands:
        yield from _options(subcommands[""], typed)
    elif len(typed) == 1:
        yield from subcommands
    elif first in subcommands:
        yield from _options(subcommands[first], typed[1:])
    yield "--help"


def _options(subcommand: Subcommand, typed: list[str]) -> Iterator[str]:
    """`key=` of options that are not given yet, or `key=value` where the values are known."""
    keys = {name: key for target in subcommand.targets for name, key in _keys(target).items()}
    given = {arg.partition("=")[0].lstrip("-") for arg in typed[:-1]}
    for name, key in keys.items():
        if name in given:
            continue
        values = [
            value for option in alternatives(key.hint) for value in _values(unwrap(option)[0])
        ]
        if values and typed[-1].startswith(f"{name}="):
            yield from (f"{name}={value}" for value in values)
        else:
            yield "--json" if name == "json" else f"{name}="


def _values(hint: object) -> tuple[object, ...]:
    """All values of a type that has few."""
    if hint is bool:
        return ("true", "false")
    return get_args(hint) if get_origin(hint) is Literal else ()


def _keys(target: str) -> dict[str, Key]:
    known = signature(target)
    return known.keys if known else {}
