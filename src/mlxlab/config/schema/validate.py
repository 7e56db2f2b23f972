"""Validates values against type hints, recursively; collects all errors."""

import math
from collections.abc import Iterable, Iterator
from collections.abc import Mapping as MappingType
from pathlib import Path
from typing import Any

from mlxlab.config.allowlist import AllowedTarget, allowed_targets
from mlxlab.config.findings import ConfigIssue
from mlxlab.config.key_path import join_key
from mlxlab.config.schema.signature import signature
from mlxlab.config.schema.types import (
    MISSING,
    Bool,
    Component,
    Kind,
    ListOf,
    Literal,
    Mapping,
    NoneType,
    Number,
    Text,
    Union,
    Unresolved,
    describe,
    shown,
)
from mlxlab.config.suggest import SYNONYMS, nearest_key, suggestion

_HOLDS = {
    "Gt": lambda value, limit: value > limit,
    "Ge": lambda value, limit: value >= limit,
    "Lt": lambda value, limit: value < limit,
    "Le": lambda value, limit: value <= limit,
}


class Validator:
    """Yields the issues of one config. `got(path, value)` formats a value for messages."""

    def __init__(self, got: Any = lambda path, value: shown(value)) -> None:
        self._got = got
        self._all_keys: list[str] = []  # of the whole tree, for suggestions

    def node(self, tree: dict[str, Any], target: str, path: str) -> Iterator[ConfigIssue]:
        """A mapping of arguments against the signature of `target`."""
        known = signature(target)
        if known is None:
            return
        if not path:
            self._all_keys = list(_dotted_keys(tree, known.keys))
        keys = {key: value for key, value in tree.items() if key not in ("_target_", "_partial_")}
        if "_target_" in tree:  # options of a command have none, and the list is made of all files of conf/
            partial = allowed_targets().get(target, AllowedTarget()).partial
            if partial is not None and bool(tree.get("_partial_", False)) != partial:
                yield ConfigIssue(join_key(path, "_partial_"), f"expected {shown(partial)} for {target}")
        for key in keys:
            if key not in known.keys:
                yield ConfigIssue(join_key(path, key), self._unknown(key, known.keys, known.runtime, path))
        for key, expected in known.keys.items():
            if key in keys:
                yield from self.value(expected.kind, keys[key], join_key(path, key))
            elif expected.required:
                yield ConfigIssue(join_key(path, key), f"missing; expected {describe(expected.kind)}")

    def value(self, kind: Kind, value: Any, path: str) -> Iterator[ConfigIssue]:
        """One value; nothing is yielded if it is what `kind` allows."""
        if isinstance(value, Unresolved):
            return
        if isinstance(value, str) and value == MISSING:
            yield ConfigIssue(path, f"missing; expected {describe(kind)}")
            return
        match kind, value:
            case Union(), _:
                yield from self._any_of(kind, value, path)
            case Component(), dict() if "_target_" in value:
                target = str(value["_target_"])
                if _serves_as(target, kind.name):
                    yield from self.node(value, target, path)
                else:
                    yield ConfigIssue(
                        join_key(path, "_target_"), f"expected a component of kind {kind.name}, got {target}"
                    )
            case Mapping(), dict():
                for key, item in value.items():
                    yield from self.value(kind.value, item, join_key(path, key))
            case ListOf(), list() if kind.min_length <= len(value) <= (kind.max_length or math.inf):
                for index, item in enumerate(value):
                    yield from self.value(kind.item, item, join_key(path, str(index)))
            case _ if not _fits(kind, value):
                yield ConfigIssue(path, self._expected(kind, value, path))

    def _any_of(self, kind: Union, value: Any, path: str) -> Iterator[ConfigIssue]:
        tries = [list(self.value(option, value, path)) for option in kind.options]
        if all(tries):
            inside = [issues for issues in tries if any(issue.path != path for issue in issues)]
            yield from inside[0] if inside else [ConfigIssue(path, self._expected(kind, value, path))]

    def _expected(self, kind: Kind, value: Any, path: str) -> str:
        if isinstance(kind, Component) and isinstance(value, dict):
            return f"expected a component; choose one with {path.replace('.', '/')}=..., or give its _target_"
        message = f"expected {describe(kind)}, got {self._got(path, value)}" + _type_of(kind, value)
        options = [str(o) for choice in _options_of(kind) if isinstance(choice, Literal) for o in choice.options]
        near = suggestion(value, options) if isinstance(value, str) and options else ""
        limit = _hidden_limit(kind, value)
        return message + limit + (near if "did you mean" in near else "")

    def _unknown(self, key: str, keys: dict[str, Any], runtime: frozenset[str], path: str) -> str:
        if key in runtime:
            return "not a key of the config: the program passes it when it builds the component"
        near = suggestion(str(key), keys, f"{path}." if path else "")
        if "did you mean" not in near or str(key) in SYNONYMS:
            anywhere = nearest_key(str(key), self._all_keys)
            near = f"; did you mean {anywhere}?" if anywhere and anywhere != join_key(path, key) else near
        return "unknown key" + near


def _dotted_keys(tree: MappingType[str, Any], known: Iterable[str] | None = None, path: str = "") -> Iterator[str]:
    """The keys of the components below `tree`, without those that no component has."""
    for key, value in tree.items():
        if known is not None and key not in known:
            continue
        here = join_key(path, key)
        if not isinstance(value, dict):
            yield here
        elif "_target_" in value:
            inner = signature(str(value["_target_"]))
            yield from _dotted_keys(value, inner.keys if inner else (), here)


def _serves_as(target: str, kind: str) -> bool:
    """False if conf/ uses `target` only as other kinds of component. A user's own target is checked when built."""
    roles, name = allowed_targets().get(target, AllowedTarget()).roles(), target.rpartition(".")[2]
    return name == kind or not roles or (kind in roles and name not in roles)


def _fits(kind: Kind, value: Any) -> bool:
    match kind:
        case Number():
            if isinstance(value, bool) or not isinstance(value, int if kind.integer else int | float):
                return False
            return math.isfinite(value) and all(_HOLDS[name](value, limit) for name, limit in kind.bounds)
        case Text():
            return isinstance(value, str) and "\0" not in value and (not kind.file or _may_be_read(value))
        case Bool():
            return isinstance(value, bool)
        case NoneType():
            return value is None
        case Literal():
            return any(type(value) is type(option) and value == option for option in kind.options)
    return False


def _may_be_read(text: str) -> bool:
    """A missing file is reported where it is read; a folder, device, pipe or `-` is not a file."""
    if text.strip() in ("", "-"):
        return False
    try:
        path = Path(text).expanduser()
        return path.is_file() or not path.exists()
    except OSError:
        return False


def _options_of(kind: Kind) -> tuple[Kind, ...]:
    return kind.options if isinstance(kind, Union) else (kind,)


def _type_of(kind: Kind, value: Any) -> str:
    """The type of a value whose text does not show it."""
    numbers = [option for option in _options_of(kind) if isinstance(option, Number)]
    if isinstance(value, str) and (numbers or any(isinstance(option, Bool) for option in _options_of(kind))):
        return " (text)"
    if isinstance(value, float) and numbers and all(number.integer for number in numbers):
        return " (a number with a fraction or an exponent)"
    if any(isinstance(option, Text) for option in _options_of(kind)) and isinstance(value, bool | int | float):
        return " (quote it: '\"...\"')"
    return ""


def _hidden_limit(kind: Kind, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    bounds = [bound for option in _options_of(kind) if isinstance(option, Number) for bound in option.bounds]
    broken = [limit for name, limit in bounds if abs(limit) >= 1e12 and not _HOLDS[name](value, limit)]
    return f"; the limit is {broken[0]:.6g}" if broken else ""
