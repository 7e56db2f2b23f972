"""What the source of a module defines, found without importing it or its parents."""

import ast
import importlib.util
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from mlxlab.errors import ConfigError

_IMPORT = re.compile(r"^(?:from|import) [^\n(]*(?:\([^)]*\))?", re.MULTILINE)
_NEXT_STATEMENT = re.compile(r"^[^\s#)\]}]", re.MULTILINE)


@cache
def definition(name: str, module: str) -> ast.AST | None:
    """What a name is bound to at the top level of a module: a definition, a value or an import.

    Only the lines that bind it are parsed, as whole modules would take a tenth of the time that a run needs to start.
    """
    source = _source(module)
    lines = [*re.finditer(rf"^(?:(?:class|def|type) +{name}\b|{name} *[:=])", source, re.MULTILINE)]
    if not lines:
        return _imports(module).get(name)
    if len(lines) == 1:
        start = source.rfind("\n\n", 0, lines[0].start()) + 1  # with its decorators
        end = _NEXT_STATEMENT.search(source, lines[0].end())
        with suppress(SyntaxError):  # what looked like the next statement was a line of a string
            return _bindings(source[start : end.start() if end else None]).get(name)
    return _bindings_of(module).get(name)


@cache
def _imports(module: str) -> dict[str, ast.AST]:
    try:
        return _bindings("\n".join(_IMPORT.findall(_source(module))))
    except SyntaxError:  # a line of a string looked like an import
        return _bindings_of(module)


@cache
def _bindings_of(module: str) -> dict[str, ast.AST]:
    with _named_faults(module):
        return _bindings(_source(module))


def _bindings(source: str) -> dict[str, ast.AST]:
    """Everything bound at the top level: name -> definition, value or import (the last one wins)."""
    names: dict[str, ast.AST] = {}
    for statement in ast.parse(source).body:
        match statement:
            case ast.ClassDef() | ast.FunctionDef():
                names[statement.name] = statement
            case ast.ImportFrom() | ast.Import():
                names.update({alias.asname or alias.name: statement for alias in statement.names})
            case (
                ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name))
            ) if statement.value:
                names[name] = statement.value
        if sys.version_info >= (3, 12) and isinstance(statement, ast.TypeAlias):
            names[statement.name.id] = statement.value
    return names


@cache
def _source(module: str) -> str:
    path = source_file(module)
    source = path.read_bytes() if path else b""
    try:
        return importlib.util.decode_source(source)
    except (UnicodeDecodeError, SyntaxError):  # bytes in a comment, which Python accepts
        with _named_faults(module):
            return ast.unparse(ast.parse(source))


@contextmanager
def _named_faults(module: str) -> Iterator[None]:
    """ConfigError for a module that is not Python."""
    try:
        yield
    except SyntaxError as error:
        raise ConfigError(
            f"{source_file(module)}:{error.lineno or 1}: not Python: {error.msg}"
        ) from None


def look_up(name: str, module: str, depth: int = 8) -> tuple[ast.AST | None, str]:
    """(definition, module) of a name, through `from x import y`; names of other packages are not followed."""
    node = definition(name, module)
    if not isinstance(node, ast.ImportFrom):
        return node, module
    source = "." * node.level + (node.module or "")
    origin = (
        importlib.util.resolve_name(source, module.rpartition(".")[0]) if node.level else source
    )
    if depth == 0 or origin.split(".")[0] not in ("mlxlab", module.split(".")[0]):
        return None, module
    alias = next(alias.name for alias in node.names if (alias.asname or alias.name) == name)
    return look_up(alias, origin, depth - 1)


def source_file(module: str) -> Path | None:
    """The source of `module`, found without importing it or its parents; None without a source file."""
    root, *names = module.split(".")
    try:
        spec = importlib.util.find_spec(root)  # a top-level name: finds, does not import
    except (ImportError, ValueError):
        return None
    if spec is None or not (spec.submodule_search_locations or spec.has_location):
        return None
    folders = spec.submodule_search_locations or [str(spec.origin).removesuffix(".py")]
    paths = [Path(folder, *names) for folder in folders]
    candidates = [
        file for path in paths for file in (path / "__init__.py", path.with_name(path.name + ".py"))
    ]
    return next(filter(Path.is_file, candidates), None)
