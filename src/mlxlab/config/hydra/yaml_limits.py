"""Reads YAML with limits: size, depth, plain values, no alias bombs, and no scalar that YAML 1.1 misreads."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NoReturn

import yaml

from mlxlab.config.issues import join_key, one_line
from mlxlab.config.paths import display_path
from mlxlab.errors import ConfigError

MAX_BYTES = 1 << 20
MAX_DEPTH = 30
MAX_NODES = 20_000  # aliases counted in full

# Scalars that YAML 1.1 reads differently than most people expect. `true`, `1e-3` and `1_000` are as expected.
_TRAPS = (
    (re.compile(r"(?i)^(yes|no|on|off)$"), "YAML reads it as true or false; write true, false, or quote it"),
    (re.compile(r"^[-+]?0[0-7_]+$"), "YAML reads it as an octal number; drop the leading zero, or quote it"),
    (re.compile(r"^[-+]?\d[\d_]*(:[0-5]?\d)+(\.\d*)?$"), "YAML reads it as a number in base 60; quote it"),
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


@dataclass(frozen=True)
class YamlFile:
    """A file within the limits: its text, its values, and the line of each dotted key."""

    text: str
    values: dict[str, object]
    lines: dict[str, int]


@cache
def read_yaml(path: Path) -> YamlFile:
    """A file of a config folder; ConfigError names file and line."""
    where = display_path(path)
    if not path.is_file():
        raise ConfigError(f"{where}: not a regular file")
    if path.stat().st_size > MAX_BYTES:
        raise ConfigError(f"{where}: {path.stat().st_size:,} bytes; a config file may have {MAX_BYTES:,}")
    data = path.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError(f"{where}: UTF-16; save it as UTF-8")
    if data.startswith(b"\xef\xbb\xbf"):
        raise ConfigError(f"{where}: begins with a byte order mark; save it as UTF-8 without one")
    if b"\0" in data:
        raise ConfigError(f"{where}:{data[: data.index(0)].count(10) + 1}: a NUL byte; this is not a text file")
    try:
        return parse_yaml(path, data.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(f"{where}:{line}: not UTF-8 (byte 0x{data[error.start]:02x})") from None


def parse_yaml(path: Path, text: str) -> YamlFile:
    """The text of `path`, if it keeps the limits; ConfigError names file and line."""
    checker = _NodeChecker(path)
    try:
        checker.check_depth(text)  # before the recursive composer
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            checker.fail("empty; write {} for no keys", 1)
        if not isinstance(root, yaml.MappingNode):
            checker.fail("expected a mapping of keys to values, got a list or a scalar", _line(root))
        checker.measure(root, "", _line(root))
        return YamlFile(text, loader.construct_document(root), checker.lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        if any("\t" in source.split("#")[0] for source in text.splitlines()[line - 1 : line]):
            checker.fail("a tab; indent with spaces", line)
        message = ", ".join(filter(None, (error.context, error.problem)))
        checker.fail(f"broken YAML: {one_line(message)}", line)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        checker.fail(f"broken YAML: {one_line(str(error), 100)}", 1)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


class _NodeChecker:
    """Checks the nodes of a file before values are made of them. An alias is its anchor's node, not a copy."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[str, int] = {}
        self.sizes: dict[int, int] = {}  # id of a mapping or list -> values in it; 0 until all are counted

    def fail(self, message: str, line: int) -> NoReturn:
        raise ConfigError(f"{display_path(self.path)}:{line}: {message}")

    def check_depth(self, text: str) -> None:
        depth = 0
        for event in yaml.parse(text, Loader=_Loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                self.fail(f"nested more than {MAX_DEPTH} deep", event.start_mark.line + 1)

    def measure(self, node: yaml.Node, path: str, line: int) -> int:
        """The number of values in `node`, aliases counted in full; records the line of each key below `path`."""
        if isinstance(node, yaml.ScalarNode):
            self.check_scalar(node)
            return 1
        size = self.sizes.get(id(node))
        if size == 0:
            self.fail("an alias is used inside its own anchor", line)
        if size is not None:
            return size
        if node.tag not in ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
            self.refuse_tag(node)
        self.sizes[id(node)] = 0
        is_mapping = isinstance(node, yaml.MappingNode)
        size, names = 1, set()
        for index, item in enumerate(node.value):
            key, value = item if is_mapping else (item, item)
            name = self.key_name(key) if is_mapping else str(index)
            if name in names:
                self.fail(f"the key {one_line(name, 60)} is defined twice", _line(key))
            names.add(name)
            inner = join_key(path, name)
            self.lines.setdefault(inner, _line(key))
            size += self.measure(value, inner, _line(key)) + is_mapping
            if size > MAX_NODES:
                self.fail(f"more than {MAX_NODES:,} values (aliases counted in full)", _line(key))
        self.sizes[id(node)] = size
        return size

    def key_name(self, key: yaml.Node) -> str:
        if not isinstance(key, yaml.ScalarNode):
            self.fail("a key that is not a scalar", _line(key))
        self.check_scalar(key)
        if key.tag != "tag:yaml.org,2002:str":
            self.fail(f"the key {one_line(key.value, 60)} is not text; quote it", _line(key))
        return str(key.value)

    def check_scalar(self, node: yaml.ScalarNode) -> None:
        is_plain = not node.style
        if node.tag != _RESOLVER.resolve(yaml.ScalarNode, node.value, (is_plain, not is_plain)):
            self.refuse_tag(node)
        for pattern, message in _TRAPS if is_plain else ():
            if pattern.match(node.value):
                self.fail(f"{node.value}: {message}", _line(node))

    def refuse_tag(self, node: yaml.Node) -> NoReturn:
        self.fail(f"a tag ({one_line(node.tag, 60)}); a config holds only plain values", _line(node))


_RESOLVER = _Loader("")
