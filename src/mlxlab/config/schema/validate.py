"""Checks values against signatures: the nodes of a config, and the options of a command, which are read from text."""

import csv
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen

from mlxlab.config.instantiate import group_of, serves_as
from mlxlab.config.issues import MISSING, UNRESOLVED, ConfigIssue
from mlxlab.config.paths import conf_dir
from mlxlab.config.schema.root import node_signature
from mlxlab.config.schema.signature import (
    Component,
    Parameter,
    Placeholder,
    Record,
    Signature,
    alternatives,
    find_classes,
    is_list,
    is_mapping,
    literals,
    read_signature,
    unwrap,
)
from mlxlab.files.untrusted import ShapeError, validate
from mlxlab.schema.constraints import IsFile, satisfies
from mlxlab.schema.dotted_keys import join_key, value_at, walk
from mlxlab.terminal.nearest import key_suggestion, suggestion
from mlxlab.terminal.wording import one_of, shown

_NAMES: dict[object, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    NoneType: "null",
    str: "text",
    Path: "text",
    object: "any value",
    Any: "any value",
}
_SIGNS: dict[type, str] = {
    Gt: ">",
    Ge: ">=",
    Lt: "<",
    Le: "<=",
    MinLen: "of length >=",
    MaxLen: "of length <=",
}
_WORDS: dict[str, object] = {"true": True, "false": False, "null": None}
_MAX_SHOWN = 1e12  # A limit that no user comes near is not described.


class Checker:
    """Yields the issues of one tree of values: a config, or the options of a command.

    Args:
        tree: all values, whose keys are suggested for unknown ones.
        raw: the same before interpolations are resolved, which may be secrets.
    """

    def __init__(self, tree: dict[str, Any], raw: dict[str, Any] | None = None) -> None:
        self.tree = tree
        self.raw = tree if raw is None else raw

    def check_node(
        self, node: dict[str, Any], target: str, path: str = ""
    ) -> Iterator[ConfigIssue]:
        """The arguments of a target."""
        known = node_signature(target, path)
        if known is not None:
            yield from self.check_arguments(node, known, path)

    def check_arguments(
        self, node: dict[str, Any], known: Signature, path: str = ""
    ) -> Iterator[ConfigIssue]:
        """Unknown keys, missing keys, and the value of each key."""
        for key in node:
            if key not in known.keys and key not in ("_target_", "_partial_"):
                yield self._explain_unknown(key, known, path)
        for key, parameter in known.keys.items():
            if key in node:
                yield from self.check_value(parameter.hint, node[key], join_key(path, key))
            elif parameter.required:
                yield _explain_missing(parameter, join_key(path, key))

    def check_value(self, hint: object, value: object, path: str) -> Iterator[ConfigIssue]:
        """One value: nothing if it is what the hint allows."""
        if value is UNRESOLVED:
            return
        if value == MISSING:
            yield ConfigIssue(path, f"missing; expected {describe(hint)}")
            return
        if isinstance(value, dict) and "_target_" in value:
            yield from self._check_component(hint, value, path)
            return
        by_option = [list(self._check_option(option, value, path)) for option in alternatives(hint)]
        if [] in by_option:
            return
        inner = [issues for issues in by_option if issues[0].path != path]
        yield from min(inner, key=len, default=[self._explain_misfit(hint, value, path)])

    def _check_component(
        self, hint: object, node: dict[str, Any], path: str
    ) -> Iterator[ConfigIssue]:
        """A node with a `_target_`. Where a callable is expected, it is called later, with further arguments."""
        target = str(node["_target_"])
        kinds = kinds_of(hint)
        components = []
        for kind in kinds:
            if not is_list(kind) and not is_mapping(kind):
                components += find_classes(kind)
        is_call = any(get_origin(kind) is Callable for kind in kinds)
        is_any = object in kinds or Any in kinds
        if not (components or is_call or is_any):
            yield self._explain_misfit(hint, node, path)
            return
        if components and not serves_as(target, path):
            names = " or ".join(each.target.rpartition(".")[2] for each in components)
            yield ConfigIssue(
                join_key(path, "_target_"), f"expected a component of kind {names}, got {target}"
            )
            return
        if bool(node.get("_partial_")) != is_call and not is_any:
            yield ConfigIssue(
                join_key(path, "_partial_"), f"expected {shown(is_call)} for {target}"
            )
        yield from self.check_node(node, target, path)

    def _check_option(self, hint: object, value: object, path: str) -> Iterator[ConfigIssue]:
        """A value against one member of a union."""
        kind, bounds = unwrap(hint)
        inner = None
        items: Iterable[tuple[object, object]] = ()
        if isinstance(kind, Record) and isinstance(value, dict):
            yield from self.check_node(value, kind.target, path)
        elif is_mapping(kind) and isinstance(value, dict):
            inner = get_args(kind)[1]
            items = value.items()
        elif is_list(kind) and isinstance(value, list) and _keeps(value, bounds):
            inner = get_args(kind)[0]
            items = enumerate(value)
        elif not _fits(kind, value) or not _keeps(value, bounds):
            yield ConfigIssue(path, "")  # `check_value` explains it.
        for key, item in items:
            yield from self.check_value(inner, item, join_key(path, key))

    def _explain_unknown(self, key: str, known: Signature, path: str) -> ConfigIssue:
        full = join_key(path, key)
        if key in known.runtime:
            return ConfigIssue(
                full, "not a key of the config: the program passes it when it builds the component"
            )
        group = group_of(path)
        if path and path == group.replace("/", "."):
            files = sorted((conf_dir() / group).glob("*.yaml"))
            names = [file.stem for file in files if f"\n{key}:" in file.read_text()]
            if names:
                return ConfigIssue(full, f"unknown key; it is of {group}={' or '.join(names)}")
        others = [name for name, _ in walk(self.tree) if name not in ("", full)]
        near = key_suggestion(key, known.keys, path, others)
        return ConfigIssue(full, f"unknown key{near}")

    def _explain_misfit(self, hint: object, value: object, path: str) -> ConfigIssue:
        options = kinds_of(hint)
        if any(isinstance(option, Component) for option in options):
            group = path.replace(".", "/")
            names = [file.stem for file in (conf_dir() / group).glob("*.yaml")]
            if names:
                near = suggestion(str(value), names, f"{group}=")
                return ConfigIssue(path, f"expected an option of {group}{near}")
        got = shown(value_at(self.raw, path) or value)
        message = f"expected {describe(hint)}, got {got}"
        if isinstance(value, str) and {int, float, bool} & set(options):
            message += " (text)"
        if isinstance(value, int | float) and value >= _MAX_SHOWN:
            message += " (too large)"
        return ConfigIssue(path, message)


def _keeps(value: object, bounds: tuple[object, ...]) -> bool:
    return all(satisfies(value, bound) for bound in bounds)


def _fits(kind: object, value: object) -> bool:
    """Whether a scalar has the right type. A whole number is accepted for a float; true is never a number."""
    if isinstance(value, int | float) and not abs(value) <= sys.float_info.max:  # NaN fails too.
        return False
    if isinstance(value, str) and "\0" in value:
        return False
    if isinstance(kind, Placeholder) or is_list(kind):
        return False
    try:
        validate(value, str if kind is Path else kind)
    except ShapeError:
        return False
    return True


def _explain_missing(parameter: Parameter, path: str) -> ConfigIssue:
    """Says what is expected of a parameter: the meaning of a text, else its type."""
    expected = describe(parameter.hint)
    meaning = re.split("[;:]", parameter.doc)[0].rstrip(".")
    if meaning and expected == "text":
        expected = meaning
    return ConfigIssue(path, f"missing; expected {expected}")


def describe(hint: object) -> str:
    """`a whole number >= 1`, `one of gelu, swiglu`, `a list of length >= 1: text`, ..."""
    options = alternatives(hint)
    if len(options) > 1:
        return " or ".join(dict.fromkeys(describe(option) for option in options))
    kind, bounds = unwrap(hint)
    if literals(kind):
        return one_of(map(shown, literals(kind)))
    if isinstance(kind, Record):
        known = read_signature(kind.target)
        assert known is not None  # A record is a class that was found.
        return f"a mapping with the keys {', '.join(known.keys)}"
    if is_mapping(kind):
        return f"a mapping of names to {describe(get_args(kind)[1])}"
    if is_list(kind):
        name = f"a list {_describe_limits(bounds)}".rstrip()
        return f"{name}: {describe(get_args(kind)[0])}"
    if kind not in _NAMES:
        return "a component (a mapping with a _target_)"
    if IsFile() in bounds:
        return "a file"
    return f"{_NAMES[kind]} {_describe_limits(bounds)}".rstrip()


def _describe_limits(bounds: tuple[Any, ...]) -> str:
    limits = []
    for bound in bounds:
        if type(bound) in _SIGNS:
            [limit] = astuple(bound)
            if abs(limit) < _MAX_SHOWN:
                limits.append(f"{_SIGNS[type(bound)]} {limit:.15g}")
    return " and ".join(limits)


def read_value(hint: object, text: str) -> object:
    """The value, or the text as it is: the check says what was expected."""
    kinds = kinds_of(hint)
    if text == "null" and NoneType in kinds:
        return None
    if {str, Path} & set(kinds):
        return text
    if any(map(is_list, kinds)):
        return _read_list(text)
    for number in (int, float):
        with suppress(ValueError):
            return number(text)
    return _WORDS.get(text, text)


def kinds_of(hint: object) -> list[Any]:
    """The types that a hint allows, without their bounds."""
    return [unwrap(option)[0] for option in alternatives(hint)]


def _read_list(text: str) -> list[str]:
    """`a,b` and `[a, b]`; a name with a comma in it is quoted."""
    inner = text.removeprefix("[").removesuffix("]")
    quote = '"' if '"' in inner else "'"
    [items] = csv.reader([inner], quotechar=quote, skipinitialspace=True)
    return [item.strip() for item in items]
