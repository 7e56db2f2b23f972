"""Finds what the source of a module defines, without importing it or its parents."""

import ast
import importlib.util
import re
from functools import cache
from importlib.machinery import PathFinder
from itertools import chain
from pathlib import Path

from mlxlab.errors import ConfigError

# A definition begins at its decorators.
_BINDING = re.compile(
    r"^(?:@.*\n(?:[\s)].*\n)*)*(?:(?:class|def|type) +(\w+)|(\w+) *[:=])", re.MULTILINE
)
_NEXT_STATEMENT = re.compile(r"^[^\s#)\]}]", re.MULTILINE)
# Imports within `if TYPE_CHECKING:` are found too.
_IMPORT = re.compile(r"^ *from ([\w.]+) import (?:\(([^)]*)\)|([^\n(]+))", re.MULTILINE)
_IMPORTED = re.compile(r"(\w+)(?: +as +(\w+))?")


@cache
def find_statement(name: str, module: str) -> ast.stmt | None:
    """The statement that defines a name at the top level of a module: a class, a function or a value.

    Only the lines of that statement are parsed: whole modules would take a tenth of the start of a run.

    Raises:
        ConfigError: they are not Python.
    """
    text = read_source(module)
    fault = None
    for binding in reversed(_bindings(module)):
        if name not in binding.groups():
            continue
        ends = (match.start() for match in _NEXT_STATEMENT.finditer(text, binding.end()))
        for end in chain(ends, [len(text)]):
            try:
                return ast.parse(text[binding.start() : end]).body[-1]
            except SyntaxError as error:  # What looked like a statement was a line of a string.
                fault = error
    if fault is not None:
        raise ConfigError(f"{source_file(module)}: not Python: {fault.msg}")
    return None


@cache
def _bindings(module: str) -> list[re.Match[str]]:
    return list(_BINDING.finditer(read_source(module)))


@cache
def read_imports(module: str) -> dict[str, tuple[str, str]]:
    """Name -> the module, and the name there, that an import binds it to."""
    imports = {}
    for origin, lines, line in _IMPORT.findall(read_source(module)):
        source = importlib.util.resolve_name(origin, module.rpartition(".")[0])
        for name, alias in _IMPORTED.findall(lines or line):
            imports[alias or name] = (source, name)
    return imports


@cache
def read_source(module: str) -> str:
    """The source text of a module; empty where there is none."""
    path = source_file(module)
    if path is None:
        return ""
    return path.read_text(encoding="utf-8", errors="replace")


def source_file(module: str) -> Path | None:
    """The file of a module, found without importing it or its parents."""
    root, *names = module.split(".")
    try:
        spec = importlib.util.find_spec(root)  # A top-level name is found without an import.
    except (ImportError, ValueError):
        return None
    for name in names:
        if spec is None:
            return None
        spec = PathFinder.find_spec(name, spec.submodule_search_locations or [])
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin)
