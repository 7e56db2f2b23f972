"""Reads YAML with limits: size, depth, expanded aliases, no tags, and no scalar that YAML 1.1 misreads."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from mlxlab.config.issues import join_key, one_line
from mlxlab.errors import ConfigError
from mlxlab.program import display_path

MAX_BYTES = 1 << 20
MAX_DEPTH = 30
_TOO_DEEP = f"nested more than {MAX_DEPTH} deep"
MAX_NODES = 20_000  # aliases counted in full

# Scalars that YAML 1.1 reads differently than most people expect. `true`, `1e-3` and `1_000` are as expected.
_TRAPS = (
    (
        re.compile(r"(?i)^(yes|no|on|off)$"),
        "YAML reads it as true or false; write true, false, or quote it",
    ),
    (
        re.compile(r"^[-+]?0[0-7_]+$"),
        "YAML reads it as an octal number; drop the leading zero, or quote it",
    ),
    (
        re.compile(r"^[-+]?\d[\d_]*(:[0-5]?\d)+(\.\d*)?$"),
        "YAML reads it as a number in base 60; quote it",
    ),
    (re.compile(r"^[=]$"), "it is reserved in YAML; quote it"),
)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads scalars as OmegaConf does: `1e-3` is a number, a date is text."""


_FLOAT = re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789"))
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}
_RESOLVER = _Loader("")


@dataclass(frozen=True)
class YamlFile:
    """A file within the limits: its text, its values, and the line of each dotted key."""

    text: str
    values: dict[str, object]
    lines: dict[str, int]

    def defaults(self) -> list[tuple[str, str | None, int]]:
        """(group as written, option, line) of each choice in the defaults list."""
        entries = self.values.get("defaults")
        return [
            (str(name), option if option is None else str(option), self.lines[f"defaults.{index}"])
            for index, entry in enumerate(entries if isinstance(entries, list) else [])
            if isinstance(entry, dict)
            for name, option in entry.items()
        ]


class _Fault(Exception):
    """Its arguments are a message and a line."""


@cache
def read_yaml(path: Path) -> YamlFile:
    """A file of a config folder; ConfigError names file and line."""
    where = display_path(path)
    if not path.is_file():
        raise ConfigError(f"{where}: not a regular file")
    if path.stat().st_size > MAX_BYTES:
        raise ConfigError(
            f"{where}: {path.stat().st_size:,} bytes; a config file may have {MAX_BYTES:,}"
        )
    data = path.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError(f"{where}: UTF-16; save it as UTF-8")
    if data.startswith(b"\xef\xbb\xbf"):
        raise ConfigError(f"{where}: begins with a byte order mark; save it as UTF-8 without one")
    if b"\0" in data:
        raise ConfigError(
            f"{where}:{data[: data.index(0)].count(10) + 1}: a NUL byte; this is not a text file"
        )
    try:
        return parse_yaml(path, data.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(f"{where}:{line}: not UTF-8 (byte 0x{data[error.start]:02x})") from None


def parse_yaml(path: Path, text: str) -> YamlFile:
    """The text of `path`, if it keeps the limits; ConfigError names file and line."""
    try:
        _check_depth(text)  # before the recursive composer
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            raise _Fault("empty; write {} for no keys", 1)
        if not isinstance(root, yaml.MappingNode):
            raise _Fault(
                "expected a mapping of keys to values, got a list or a scalar", _line(root)
            )
        lines: dict[str, int] = {}
        _measure(root, "", _line(root), lines, {})
        return YamlFile(text, loader.construct_document(root), lines)
    except _Fault as fault:
        message, line = fault.args
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        message = (
            f"broken YAML: {one_line(', '.join(filter(None, (error.context, error.problem))))}"
        )
        if any("\t" in source.split("#")[0] for source in text.splitlines()[line - 1 : line]):
            message = "a tab; indent with spaces"
        if "nesting depth" in (
            error.problem or ""
        ):  # libyaml has a limit too, which scanning ahead reaches first
            message = _TOO_DEEP
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        message, line = f"broken YAML: {one_line(str(error), 100)}", 1
    raise ConfigError(f"{display_path(path)}:{line}: {message}")


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _check_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(
            event, yaml.CollectionEndEvent
        )
        if depth > MAX_DEPTH:
            raise _Fault(_TOO_DEEP, event.start_mark.line + 1)


def _measure(
    node: yaml.Node, path: str, line: int, lines: dict[str, int], sizes: dict[int, int]
) -> int:
    """Checks a node and all in it; an alias is the node of its anchor. Returns the number of values, aliases in full.

    Fills `lines` with the line of each key, `sizes` with the number of values by the id of a node, 0 until it is known.
    """
    if isinstance(node, yaml.ScalarNode):
        _check_scalar(node)
        return 1
    if id(node) in sizes:
        if sizes[id(node)] == 0:
            raise _Fault("an alias is used inside its own anchor", line)
        return sizes[id(node)]
    if node.tag not in ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
        raise _tag_fault(node)
    sizes[id(node)] = 0
    is_mapping = isinstance(node, yaml.MappingNode)
    size, names = 1, set()
    for index, item in enumerate(node.value):
        key, value = item if is_mapping else (item, item)
        name = _key_name(key) if is_mapping else str(index)
        if name in names:
            raise _Fault(f"the key {one_line(name, 60)} is defined twice", _line(key))
        names.add(name)
        inner = join_key(path, name)
        lines.setdefault(inner, _line(key))
        size += _measure(value, inner, _line(key), lines, sizes) + is_mapping
        if size > MAX_NODES:
            raise _Fault(f"more than {MAX_NODES:,} values (aliases counted in full)", _line(key))
    sizes[id(node)] = size
    return size


def _key_name(key: yaml.Node) -> str:
    if not isinstance(key, yaml.ScalarNode):
        raise _Fault("a key that is not a scalar", _line(key))
    _check_scalar(key)
    if key.tag != "tag:yaml.org,2002:str":
        raise _Fault(f"the key {one_line(key.value, 60)} is not text; quote it", _line(key))
    return str(key.value)


def _check_scalar(node: yaml.ScalarNode) -> None:
    is_plain = not node.style
    if node.tag != _RESOLVER.resolve(yaml.ScalarNode, node.value, (is_plain, not is_plain)):
        raise _tag_fault(node)
    for pattern, message in _TRAPS if is_plain else ():
        if pattern.match(node.value):
            raise _Fault(f"{node.value}: {message}", _line(node))


def _tag_fault(node: yaml.Node) -> _Fault:
    return _Fault(
        f"a tag ({one_line(node.tag, 60)}); a config holds only plain values", _line(node)
    )
