"""Command-line arguments: `key=value` arguments, parsed into a dataclass of options by its signature and docstring."""

import importlib
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from textwrap import wrap
from typing import Any, Generic, NamedTuple, TypeVar

from mlxlab.config.issues import format_issues
from mlxlab.config.schema.signature import Key, signature
from mlxlab.config.schema.types import NULL, Kind, ListOf, Number, Text, Union, describe, shown
from mlxlab.config.schema.validate import Validator
from mlxlab.config.suggest import suggestion
from mlxlab.errors import ConfigError

T = TypeVar("T")
_WIDTH, _COLUMN = 110, 30


class Arguments(NamedTuple, Generic[T]):
    """A parsed command line: the options, the arguments without `=`, and the arguments for another parser."""

    options: T
    names: list[str]
    rest: list[str]


def parse_args(
    args: Sequence[str], kind: type[T], *, names: tuple[int, int] = (0, 0), forward: str | None = None
) -> Arguments[T]:
    """The options of a dataclass from the arguments of a command line.

    Args:
        names: the minimum and maximum number of arguments without `=`.
        forward: arguments whose key starts with this and is no option are returned in `rest`; None forwards none, and
            "" all, arguments without `=` too.

    Raises:
        ConfigError: an unknown key with the nearest one, a key given twice, or an invalid value.
    """
    values, positional, rest = parse_values(args, [_name(kind)], forward)
    low, high = names
    if not low <= len(positional) <= high:
        expected = f"{low}" if low == high else f"{low} or more" if high >= 1000 else f"{low} to {high}"
        extra = f": {positional[high]}" if len(positional) > high else ""
        raise ConfigError(f"expected {expected} word{'s' * (high != 1)} without `=`, got {len(positional)}{extra}")
    types = {field.name: field.type for field in fields(kind)}  # type: ignore[arg-type]
    for name, value in values.items():
        if types[name] in (Path, Path | None) and isinstance(value, str):
            values[name] = _path(name, value)
    return Arguments(kind(**values), positional, rest)


def parse_values(
    args: Sequence[str], targets: Sequence[str], forward: str | None = None
) -> tuple[dict[str, Any], list[str], list[str]]:
    """(values of the typed options, arguments without `=`, forwarded arguments) for dataclasses by dotted name."""
    known = {name: key for target in targets for name, key in _keys(target).items()}
    values: dict[str, Any] = {}
    names, rest = [], []
    for word in args:
        name, equals, text = word.lstrip("-").partition("=")
        if name in known and equals:
            if name in values:
                raise ConfigError(f"{word}: {name} is given twice")
            values[name] = parse_value(known[name].kind, text)
        elif forward == "" or (forward and name.startswith(forward) and equals):
            rest.append(word)
        elif (equals and not Path(word).exists()) or word.startswith("-"):  # a folder may be named a=b
            raise ConfigError(f"{word}: unknown key{suggestion(name, known)}")
        elif name in known:
            raise ConfigError(f"{word}: expected {name}=...")
        else:
            names.append(word)
    issues = [
        issue
        for target in targets
        for issue in Validator().node({k: v for k, v in values.items() if k in _keys(target)}, target, "")
    ]
    if issues:
        labels = {name: f"{name}={shown(value)}" for name, value in values.items()}
        raise ConfigError(format_issues(issues, lambda path: labels.get(path, f"{path}=...")))
    return values, names, rest


def describe_args(targets: Sequence[str]) -> str:
    """A paragraph per option: its default, its type, its meaning."""
    lines = []
    for target in targets:
        defaults = _defaults(target)
        for name, key in _keys(target).items():
            head = f"{name}=..." if key.required else f"{name}={shown(defaults[name])}"
            args = wrap(f"{describe(key.kind)}; {key.doc}", _WIDTH - _COLUMN)
            lines += [head.ljust(_COLUMN - 1) + " " + args[0], *(" " * _COLUMN + more for more in args[1:])]
    return "\n".join(lines)


def _name(kind: type[Any]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _keys(target: str) -> dict[str, Key]:
    known = signature(target)
    return known.keys if known else {}


def _defaults(target: str) -> dict[str, Any]:
    module, _, name = target.rpartition(".")
    options = fields(getattr(importlib.import_module(module), name))
    return {
        field.name: field.default_factory() if field.default_factory is not MISSING else field.default
        for field in options
    }


def _path(name: str, text: str) -> Path:
    if not text or "\0" in text:
        raise ConfigError(f"{name}={shown(text)}: expected a path")
    try:
        return Path(text).expanduser()
    except RuntimeError:  # `~nobody`
        return Path(text)


def parse_value(kind: Kind, text: str) -> Any:
    """Text as a value of its kind, or as it is: the validator reports what was expected."""
    kinds = kind.options if isinstance(kind, Union) else (kind,)
    if text == "null" and any(option == NULL for option in kinds):
        return None
    if any(isinstance(option, Text) for option in kinds):
        return text
    if any(isinstance(option, ListOf) for option in kinds):
        items = _yaml(text) if text.startswith("[") else None
        return items if isinstance(items, list) else [text]
    if any(isinstance(option, Number) for option in kinds):
        for number in (int, float):
            try:
                return number(text)
            except ValueError:
                continue
    return _yaml(text)


def _yaml(text: str) -> Any:
    import yaml  # slow to import, and most options are numbers or text

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text
