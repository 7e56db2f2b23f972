"""Command-line arguments: `key=value`, parsed by the signature and docstring of a function or class.

`--key` is short for `key=true`.
"""

import importlib
import inspect
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from textwrap import wrap
from types import NoneType
from typing import Any, NamedTuple, get_origin

from mlxlab.config.issues import ConfigIssue, format_issues, one_line, shown
from mlxlab.config.paths import conf_dir
from mlxlab.config.schema.root import TARGET as ROOT
from mlxlab.config.schema.signature import Key, alternatives, signature, unwrap
from mlxlab.config.schema.validate import Validator, describe
from mlxlab.errors import ConfigError
from mlxlab.nearest import did_you_mean, nearest, suggestion
from mlxlab.redact import unknown_key

MANY = 1000  # From this maximum on any number of arguments is accepted.


class ArgumentCountError(ConfigError):
    """Too few or too many arguments without `=`."""


def parse_args(
    args: Sequence[str],
    targets: Sequence[str],
    *,
    num_positional: tuple[int, int] = (0, 0),
    forward_prefix: str | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """(values of the options, further arguments) of a command line.

    Args:
        targets: dotted names of functions or classes, whose parameters are the options; they are not imported.
        num_positional: the minimum and maximum number of arguments without `=`.
        forward_prefix: also accepts further arguments whose key starts with this and is no option, for another parser;
            None accepts none, and "" all, arguments without `=` too.

    Raises:
        ConfigError: a line for every unknown key with the nearest one, key given twice, and invalid value.
        ArgumentCountError: a wrong number of arguments without `=`.
    """
    known = {name: key for target in targets for name, key in _keys(target).items()}
    values: dict[str, Any] = {}
    positional, forwarded = [], []
    faults: list[str] = []
    meant: set[str | None] = set()  # options that unknown keys were probably meant to be
    for arg in args:
        label = one_line(arg, 300)
        name, equals, text = arg.lstrip("-").partition("=")
        is_flag = arg.startswith("--") and not equals and name in known and known[name].hint is bool
        if name in known and (equals or is_flag):
            if name in values:
                faults.append(f"{label}: {name} is given twice")
            values[name] = True if is_flag else parse_value(known[name].hint, text)
        elif forward_prefix == "" or (
            forward_prefix and name.startswith(forward_prefix) and equals
        ):
            forwarded.append(arg)
        elif (equals and not os.path.exists(arg)) or arg.startswith(
            "-"
        ):  # a folder may be named a=b
            is_run = name == "model" and "run" in known
            hint = did_you_mean("run") if is_run else suggestion(name, known)
            faults.append(unknown_key(label, f"unknown key{hint}"))
            meant.add("run" if is_run else nearest(name, known))
        elif name in known:
            faults.append(f"{label}: expected {name}=...")
            meant.add(name)
        else:
            positional.append(arg)
    by_target = {
        target: {name: values[name] for name in _keys(target) if name in values}
        for target in targets
    }
    issues = [
        issue for target, own in by_target.items() for issue in Validator().node(own, target, "")
    ]
    missing = [issue.path for issue in issues if issue.path not in values]
    for name, label in (
        (arg.partition("=")[0], one_line(arg, 300)) for arg in forwarded if "=" in arg
    ):
        if near := nearest(name, missing):
            faults.append(unknown_key(label, f"unknown key{did_you_mean(near)}"))
            meant.add(near)
    issues = [issue for issue in issues if issue.path in values or issue.path not in meant]
    issues = [
        _with_meaning(issue, known) if issue.path not in values else issue for issue in issues
    ]
    if faults or issues:
        labels = {name: f"{name}={shown(value)}" for name, value in values.items()}
        lines = format_issues(issues, lambda path: labels.get(path, f"{path}=...")).splitlines()
        raise ConfigError("\n".join([*faults, *lines]))
    _check_count(positional, *num_positional)
    return values, positional + forwarded


def _check_count(positional: list[str], low: int, high: int) -> None:
    if low <= len(positional) <= high:
        return
    expected = str(low)
    if high >= MANY:
        expected = f"{low} or more"
    elif high > low:
        expected = f"{low} to {high}"
    noun = "argument" if high == 1 else "arguments"
    extra = f": {positional[high]}" if len(positional) > high else ""
    raise ArgumentCountError(
        f"expected {expected} {noun} without `=`, got {len(positional)}{extra}"
    )


def _with_meaning(issue: ConfigIssue, known: Mapping[str, Key]) -> ConfigIssue:
    """An issue about a missing text, with the beginning of the description of that option."""
    meaning = re.split("[;:]", known[issue.path].doc)[0].rstrip(".") if issue.path in known else ""
    is_text = meaning and issue.message == "missing; expected text"
    return ConfigIssue(issue.path, f"missing; expected {meaning}") if is_text else issue


def check_overrides(args: Sequence[str], targets: Sequence[str]) -> None:
    """Raises ConfigError for an argument that is no override of train, and that looks like a mistyped option.

    Args:
        targets: those of `parse_args`, which has left these arguments.
    """
    options = {name for target in targets for name in _keys(target)}
    keys = {*_keys(ROOT), *(folder.name for folder in conf_dir().iterdir())}
    for arg in args:
        name, equals, _ = arg.partition("=")
        if not equals or not name.isidentifier() or name in keys:
            continue
        near = nearest(name, options | keys)
        if near in options:
            raise ConfigError(unknown_key(one_line(arg, 120), f"unknown key{did_you_mean(near)}"))


def parse_value(hint: object, text: str) -> object:
    """Text as a value of its type hint, or as it is: the validator reports what was expected."""
    types = [unwrap(option)[0] for option in alternatives(hint)]
    if text == "null" and NoneType in types:
        return None
    if str in types:
        return text
    if list in map(get_origin, types):
        items = _parse_yaml(text) if text.startswith("[") else None
        return items if isinstance(items, list) else [text]
    for number in (int, float) if int in types or float in types else ():
        with suppress(ValueError):
            return number(text)
    return _parse_yaml(text)


def _parse_yaml(text: str) -> object:
    import yaml  # slow to import, and most options are numbers or text

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text


class OptionHelp(NamedTuple):
    name: str
    default: str | None
    expected: str
    description: str


def option_help(target: str) -> list[OptionHelp]:
    """Every option of a target; the default of one that is required is None."""
    module, _, name = target.rpartition(".")
    parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    options = []
    for key, option in _keys(target).items():
        is_list = (
            get_origin(unwrap(option.hint)[0]) is list
        )  # the signature of a dataclass hides a new list
        default = None if option.required else shown([] if is_list else parameters[key].default)
        options.append(OptionHelp(key, default, describe(option.hint), option.doc))
    return options


def describe_options(target: str) -> list[str]:
    """A paragraph per option: its default, its type, its meaning."""
    paragraphs = (
        two_columns(
            f"{name}={'...' if default is None else default}", f"{expected}; {description}", 30
        )
        for name, default, expected, description in option_help(target)
    )
    return [line for lines in paragraphs for line in lines]


def two_columns(head: str, text: str, column: int) -> list[str]:
    """Lines with `head`, and `text` from `column` on; a head that is too long gets a line of its own."""
    own_line = [] if len(head) < column else [head]
    indent = " " * column if own_line else head.ljust(column)
    return own_line + wrap(text, 120, initial_indent=indent, subsequent_indent=" " * column)


def _keys(target: str) -> dict[str, Key]:
    known = signature(target)
    return known.keys if known else {}
