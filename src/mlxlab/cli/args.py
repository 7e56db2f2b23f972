"""`key=value` words of a command line against signatures: read, checked, and explained by the same source."""

import importlib
from collections.abc import Sequence
from dataclasses import MISSING, fields
from textwrap import wrap
from typing import Any

import yaml

from mlxlab.config.findings import format_issues
from mlxlab.config.schema.signature import Key, signature
from mlxlab.config.schema.types import Kind, ListOf, Number, Text, Union, describe, shown
from mlxlab.config.schema.validate import Validator
from mlxlab.config.suggest import suggestion
from mlxlab.errors import ConfigError

_WIDTH, _COLUMN = 110, 30


def parse_args(words: Sequence[str], targets: Sequence[str], plain: Sequence[str]) -> dict[str, Any]:
    """The values typed for the keys of `targets` (dataclasses by their full names) and for the `plain` ones, as text.

    Raises:
        ConfigError: an unknown key with the nearest one, a key typed twice, or a value that its key may not have.
    """
    known = _keys(targets)
    found: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.lstrip("-").partition("=")
        if name not in known and name not in plain:
            raise ConfigError(f"{word}: unknown key{suggestion(name, [*known, *plain])}")
        if not equals:
            raise ConfigError(f"{word}: expected {name}=...")
        if name in found:
            raise ConfigError(f"{word}: {name} stands here twice")
        found[name] = _value(known[name].kind, text) if name in known else text
    faults = [
        finding
        for target in targets
        for finding in Validator().node({k: v for k, v in found.items() if k in _keys([target])}, target, "")
    ]
    if faults:
        raise ConfigError(format_issues(faults, lambda path: f"{path}={shown(found[path])}" if path in found else path))
    return found


def describe_args(targets: Sequence[str]) -> str:
    """A paragraph per key: its default, what it may be, what it does."""
    lines = []
    for target in targets:
        module, _, name = target.rpartition(".")
        defaults = _defaults(getattr(importlib.import_module(module), name))
        for key, known in _keys([target]).items():
            head = f"{key}={shown(defaults[key])}"
            words = wrap(f"{describe(known.kind)}; {known.doc}", _WIDTH - _COLUMN)
            lines += [head.ljust(_COLUMN) + words[0], *(" " * _COLUMN + more for more in words[1:])]
    return "\n".join(lines)


def _keys(targets: Sequence[str]) -> dict[str, Key]:
    found: dict[str, Key] = {}
    for target in targets:
        known = signature(target)
        found |= known.keys if known else {}
    return found


def _defaults(part: Any) -> dict[str, Any]:
    made: Any = {one.name: one.default_factory for one in fields(part)}
    return {one.name: one.default if one.default is not MISSING else made[one.name]() for one in fields(part)}


def _value(kind: Kind, text: str) -> Any:
    """Text as what its key wants, or as it is if it is nothing of the kind: the check will say so."""
    kinds = kind.options if isinstance(kind, Union) else (kind,)
    if any(isinstance(one, Text) for one in kinds):
        return text
    if any(isinstance(one, ListOf) for one in kinds):
        read = _yaml(text) if text.startswith("[") else None
        return read if isinstance(read, list) else [text]
    if any(isinstance(one, Number) for one in kinds):
        for number in (int, float):
            try:
                return number(text)
            except ValueError:
                continue
    return _yaml(text)


def _yaml(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
