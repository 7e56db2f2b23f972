"""Checks a YAML file before it is parsed: size, depth, plain values, and no scalar that YAML 1.1 misreads.

One pass over the parser's events, so nothing is built: alias bombs are rejected without being expanded.
"""

import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import yaml

from mlxlab.config.findings import one_line
from mlxlab.config.key_path import join_key
from mlxlab.config.paths import display_path
from mlxlab.errors import ConfigError

MAX_BYTES = 1 << 20
MAX_DEPTH = 30
MAX_NODES = 20_000  # aliases counted in full

_RESOLVER = yaml.SafeLoader("")
_PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Scalars that YAML 1.1 reads differently than most people expect. `true`, `1e-3` and `1_000` are as expected.
_TRAPS = (
    (re.compile(r"(?i)^(yes|no|on|off)$"), "YAML reads it as true or false; write true, false, or quote it"),
    (re.compile(r"^[-+]?0[0-7_]+$"), "YAML reads it as an octal number; drop the leading zero, or quote it"),
    (re.compile(r"^[-+]?\d[\d_]*(:[0-5]?\d)+(\.\d*)?$"), "YAML reads it as a number in base 60; quote it"),
    (re.compile(r"^[=]$"), "it is reserved in YAML; quote it"),
)


@dataclass
class YamlFile:
    """A checked file: its text, and the line of each dotted key."""

    text: str
    lines: dict[str, int] = field(default_factory=dict)


@dataclass
class _Collection:
    """A mapping or list that is being read."""

    path: str
    is_map: bool
    anchor: str | None
    size: int = 1
    key: str | None = None  # whose value comes next
    keys: set[str] = field(default_factory=set)
    items: int = 0


@cache
def read_yaml(path: Path) -> YamlFile:
    """A file of a config folder; ConfigError names file and line."""
    return scan_yaml(path, _text(path))


def scan_yaml(path: Path, text: str) -> YamlFile:
    """The text of `path`, if it keeps the limits; ConfigError names file and line."""
    return _YamlScanner(path, text).scan()


def _text(path: Path) -> str:
    if not path.is_file():
        raise ConfigError(f"{display_path(path)}: not a regular file")
    if path.stat().st_size > MAX_BYTES:
        raise ConfigError(f"{display_path(path)}: {path.stat().st_size:,} bytes; a config file may have {MAX_BYTES:,}")
    data = path.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError(f"{display_path(path)}: UTF-16; save it as UTF-8")
    if data.startswith(b"\xef\xbb\xbf"):
        raise ConfigError(f"{display_path(path)}: begins with a byte order mark; save it as UTF-8 without one")
    if b"\0" in data:
        raise ConfigError(
            f"{display_path(path)}:{data[: data.index(0)].count(10) + 1}: a NUL byte; this is not a text file"
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(f"{display_path(path)}:{line}: not UTF-8 (byte 0x{data[error.start]:02x})") from None


class _YamlScanner:
    """One pass over a file."""

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.text = path, text
        self.lines: dict[str, int] = {}
        self.stack: list[_Collection] = []
        self.sizes: dict[str, int] = {}  # anchor -> number of nodes
        self.line = 1

    def scan(self) -> YamlFile:
        documents = content = 0
        try:
            for event in yaml.parse(self.text, Loader=_PARSER):
                self.line = event.start_mark.line + 1
                documents += isinstance(event, yaml.DocumentStartEvent)
                if documents > 1:
                    self._fault("a second document; expected one")
                if isinstance(event, yaml.NodeEvent):
                    content += 1
                    self._node(event)
                elif isinstance(event, yaml.CollectionEndEvent):
                    self._close()
        except yaml.MarkedYAMLError as error:
            self._broken(error)
        except (yaml.YAMLError, RecursionError) as error:
            self._fault(f"broken YAML: {one_line(str(error))}")
        if not content:
            self._fault("empty; write {} for no keys")
        return YamlFile(self.text, self.lines)

    def _fault(self, message: str, line: int | None = None) -> None:
        raise ConfigError(f"{display_path(self.path)}:{line or self.line}: {message}")

    def _broken(self, error: yaml.MarkedYAMLError) -> None:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else self.line
        if "\t" in (self.text.splitlines() or [""])[min(line, len(self.text.splitlines())) - 1].split("#")[0]:
            self._fault("a tab; indent with spaces", line)
        message = ", ".join(filter(None, (error.context, error.problem)))
        self._fault(f"broken YAML: {one_line(message)}", line)

    def _node(self, event: yaml.NodeEvent) -> None:
        if not self.stack and not isinstance(event, yaml.MappingStartEvent):
            self._fault("expected a mapping of keys to values, got a list or a scalar")
        tag = getattr(event, "tag", None)
        if tag is not None and not isinstance(event, yaml.AliasEvent):
            self._fault(f"a tag ({one_line(tag, 60)}); a config holds only plain values")
        if self._is_key():
            self._key(event)
            return
        path = self._next_path()
        if isinstance(event, yaml.CollectionStartEvent):
            if len(self.stack) >= MAX_DEPTH:
                self._fault(f"nested more than {MAX_DEPTH} deep")
            self.stack.append(_Collection(path, isinstance(event, yaml.MappingStartEvent), event.anchor))
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.sizes:
                self._fault(f"*{event.anchor} is used inside its own anchor, or before it")
            self._grow(self.sizes[event.anchor])
        else:
            self._scalar(event, path)

    def _is_key(self) -> bool:
        return bool(self.stack) and self.stack[-1].is_map and self.stack[-1].key is None

    def _key(self, event: yaml.NodeEvent) -> None:
        parent = self.stack[-1]
        if not isinstance(event, yaml.ScalarEvent):
            self._fault("a key that is not a scalar")
        name = event.value
        if event.implicit[0]:
            self._trap(name)
            if _RESOLVER.resolve(yaml.ScalarNode, name, (True, False)) != "tag:yaml.org,2002:str":
                self._fault(f"the key {one_line(name, 60)} is not text; quote it")
        if name in parent.keys:
            self._fault(f"the key {one_line(name, 60)} is defined twice")
        parent.keys.add(name)
        parent.key = name
        self.lines.setdefault(join_key(parent.path, name), self.line)
        self._grow(1)

    def _next_path(self) -> str:
        if not self.stack:
            return ""
        parent = self.stack[-1]
        if parent.is_map:
            name, parent.key = str(parent.key), None
            return join_key(parent.path, name)
        parent.items += 1
        path = join_key(parent.path, str(parent.items - 1))
        self.lines.setdefault(path, self.line)
        return path

    def _scalar(self, event: yaml.ScalarEvent, path: str) -> None:
        if event.implicit[0]:
            self._trap(event.value)
        if event.anchor:
            self.sizes[event.anchor] = 1
        self._grow(1)

    def _trap(self, text: str) -> None:
        for pattern, message in _TRAPS:
            if pattern.match(text):
                self._fault(f"{text}: {message}")

    def _grow(self, nodes: int) -> None:
        if not self.stack:
            return
        self.stack[-1].size += nodes
        if self.stack[-1].size > MAX_NODES:
            self._fault(f"more than {MAX_NODES:,} values (aliases counted in full)")

    def _close(self) -> None:
        closed = self.stack.pop()
        if closed.anchor:
            self.sizes[closed.anchor] = closed.size
        self._grow(closed.size)
