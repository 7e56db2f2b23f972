"""Reads YAML that anyone may have written: within limits, plain values only, and scalars as in YAML 1.2.

So `no`, `0777` and `12:30` are text, unlike in YAML 1.1.
"""

import re
from collections.abc import Hashable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mlxlab.errors import ConfigError, UserError
from mlxlab.files.untrusted import read_text
from mlxlab.schema.dotted_keys import walk
from mlxlab.terminal.program import display_path
from mlxlab.terminal.wording import one_line

MAX_BYTES = 1 << 20
MAX_DEPTH = 30
MAX_VALUES = 20_000  # Aliases are counted in full.

_TAG = "tag:yaml.org,2002:"
_SCALARS = {
    "null": "~|null|Null|NULL|",
    "bool": "true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?(0|[1-9][\d_]*)",
    "float": r"[-+]?(\d[\d_]*\.[\d_]*|\.\d[\d_]*|\d[\d_]*(?=[eE]))([eE][-+]?\d+)?"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
}


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Refuses tags of other types, keys that are no text, and keys that are there twice."""

    def construct_mapping(
        self, node: yaml.MappingNode, deep: bool = False
    ) -> dict[Hashable, object]:
        names = set[str]()
        for key, _ in node.value:
            if key.tag != f"{_TAG}str":
                raise _fault(f"the key {key.value} is not text; quote it", key.start_mark)
            if key.value in names:
                raise _fault(f"the key {key.value} is defined twice", key.start_mark)
            names.add(key.value)
        mapping: dict[Hashable, object] = super().construct_mapping(node, deep)
        return mapping


_Loader.yaml_implicit_resolvers = {}
for _name, _pattern in _SCALARS.items():
    _Loader.add_implicit_resolver(f"{_TAG}{_name}", re.compile(f"^({_pattern})$"), None)


class YamlFile(NamedTuple):
    """A file within the limits: its text and its values."""

    text: str
    values: dict[str, Any]


@cache
def read_yaml(path: Path) -> YamlFile:
    """A file of a config folder; ConfigError names it, and the line."""
    try:
        text = read_text(path.resolve(), max_bytes=MAX_BYTES)
    except UserError as error:
        raise ConfigError(str(error)) from None
    return parse_yaml(path, text.removeprefix("\ufeff"))


def parse_yaml(path: Path, text: str) -> YamlFile:
    """The text of `path`, if it keeps the limits; ConfigError names file and line."""
    line = 1
    try:
        values = yaml.load(text, _Loader)  # libyaml itself refuses a depth of 1,000.
        for count, (key, value) in enumerate(walk(values)):
            if not isinstance(value, dict | list | str | int | float | None):
                raise ValueError(f"{key}: expected text, a number, true, false or null")
            if key.count(".") > MAX_DEPTH:
                raise ValueError(f"nested more than {MAX_DEPTH} deep")
            if count > MAX_VALUES:
                raise ValueError(f"more than {MAX_VALUES:,} values (aliases counted in full)")
        if isinstance(values, dict):
            return YamlFile(text, values)
        problem = "expected a mapping of keys to values"
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        if mark:
            line = mark.line + 1
        problem = str(error)
    raise ConfigError(f"{display_path(path)}:{line}: broken YAML: {one_line(problem, 100)}")


def _fault(problem: str, mark: yaml.Mark) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
