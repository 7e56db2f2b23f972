"""Command-line arguments: `key=value` arguments, parsed into a dataclass of options by its signature and docstring."""

import importlib
import os
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any, TypeVar

from mlxlab.config.issues import format_issues
from mlxlab.config.schema.signature import Key, signature
from mlxlab.config.schema.types import NULL, Kind, ListOf, Number, Text, Union, describe, shown
from mlxlab.config.schema.validate import Validator
from mlxlab.config.suggest import suggestion
from mlxlab.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


def parse_args(
    args: Sequence[str], kind: type[T], *, names: tuple[int, int] = (0, 0), forward: str | None = None
) -> tuple[T, list[str]]:
    """(options, further arguments) of a command line.

    Args:
        names: the minimum and maximum number of arguments without `=`.
        forward: also accepts further arguments whose key starts with this and is no option, for another parser; None
            accepts none, and "" all, arguments without `=` too.

    Raises:
        ConfigError: an unknown key with the nearest one, a key given twice, or an invalid value.
    """
    values, further = parse_values(args, [dotted_name(kind)], names=names, forward=forward)
    return make_options(kind, values), further


def dotted_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def make_options(kind: type[T], values: dict[str, Any]) -> T:
    """A dataclass of those values that are fields of it; the text of a `Path` field becomes a path."""
    types = {field.name: field.type for field in fields(kind)}
    own = {name: value for name, value in values.items() if name in types}
    for name, value in own.items():
        if types[name] in (Path, Path | None) and isinstance(value, str):
            if not value:
                raise ConfigError(f"{name}=: expected a path")
            own[name] = Path(os.path.expanduser(value))  # unlike Path.expanduser, leaves `~nobody` as it is
    return kind(**own)


def typed_options(options: "DataclassInstance") -> list[str]:
    """The arguments that give these options; those with their default are left out."""
    values = {field.name: (getattr(options, field.name), field.default) for field in fields(options)}
    return [f"{name}={value}" for name, (value, default) in values.items() if value != default]


def parse_values(
    args: Sequence[str], targets: Sequence[str], *, names: tuple[int, int] = (0, 0), forward: str | None = None
) -> tuple[dict[str, Any], list[str]]:
    """`parse_args` for dataclasses or functions by dotted name, which are not imported: (values, further arguments)."""
    known = {name: key for target in targets for name, key in _keys(target).items()}
    values: dict[str, Any] = {}
    positional, forwarded = [], []
    for arg in args:
        name, equals, text = arg.lstrip("-").partition("=")
        if name in known and equals:
            if name in values:
                raise ConfigError(f"{arg}: {name} is given twice")
            values[name] = parse_value(known[name].kind, text)
        elif forward == "" or (forward and name.startswith(forward) and equals):
            forwarded.append(arg)
        elif (equals and not Path(arg).exists()) or arg.startswith("-"):  # a folder may be named a=b
            raise ConfigError(f"{arg}: unknown key{suggestion(name, known)}")
        elif name in known:
            raise ConfigError(f"{arg}: expected {name}=...")
        else:
            positional.append(arg)
    issues = [
        issue
        for target in targets
        for issue in Validator().node({k: v for k, v in values.items() if k in _keys(target)}, target, "")
    ]
    if issues:
        labels = {name: f"{name}={shown(value)}" for name, value in values.items()}
        raise ConfigError(format_issues(issues, lambda path: labels.get(path, f"{path}=...")))
    low, high = names
    if not low <= len(positional) <= high:
        expected = f"{low}" if low == high else f"{low} or more" if high >= 1000 else f"{low} to {high}"
        extra = f": {positional[high]}" if len(positional) > high else ""
        raise ConfigError(f"expected {expected} argument{'s' * (high != 1)} without `=`, got {len(positional)}{extra}")
    return values, positional + forwarded


def parse_value(kind: Kind, text: str) -> object:
    """Text as a value of its kind, or as it is: the validator reports what was expected."""
    options = kind.options if isinstance(kind, Union) else (kind,)
    types = {type(option) for option in options}
    if text == "null" and NULL in options:
        return None
    if Text in types:
        return text
    if ListOf in types:
        items = _parse_yaml(text) if text.startswith("[") else None
        return items if isinstance(items, list) else [text]
    for number in (int, float) if Number in types else ():
        try:
            return number(text)
        except ValueError:
            continue
    return _parse_yaml(text)


def _parse_yaml(text: str) -> object:
    import yaml  # slow to import, and most options are numbers or text

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text


def describe_options(targets: Sequence[str]) -> str:
    """A paragraph per option, below the heading of its dataclass: its default, its type, its meaning."""
    lines = []
    for target in dict.fromkeys(targets):
        module, _, name = target.rpartition(".")
        options = fields(getattr(importlib.import_module(module), name))
        defaults = {o.name: o.default if o.default_factory is MISSING else o.default_factory() for o in options}
        heading = signature(target)
        lines += ["", heading.doc.rstrip(".") if heading else name, ""]
        for key, option in _keys(target).items():
            head = f"{key}=..." if option.required else f"{key}={shown(defaults[key])}"
            lines += two_columns(head, f"{describe(option.kind)}; {option.doc}", 30)
    return "\n".join(lines)


def two_columns(head: str, text: str, column: int) -> list[str]:
    """Lines with `head`, and `text` from `column` on: beside the head, or below one that is too long."""
    fits = len(head) < column
    first = (head if fits else "").ljust(column)
    lines = wrap(text, 120, initial_indent=first, subsequent_indent=" " * column)
    return lines if fits else [head, *lines]


def _keys(target: str) -> dict[str, Key]:
    known = signature(target)
    return known.keys if known else {}
