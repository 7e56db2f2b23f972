"""Reads definitions and names of modules with `ast`, without importing or running them."""

import ast
from dataclasses import dataclass
from functools import cache

from mlxlab.config.paths import source_file

Definition = ast.ClassDef | ast.FunctionDef


@dataclass(frozen=True)
class LocatedDefinition:
    """The expression or definition that a name refers to, and its module."""

    node: ast.AST
    module: str


@cache
def _names(module: str) -> dict[str, ast.AST]:
    """Everything bound at the top level of a module: name -> statement (the last one wins, as in Python)."""
    path = source_file(module)
    if path is None:
        return {}
    names: dict[str, ast.AST] = {}
    for statement in ast.parse(path.read_bytes()).body:
        match statement:
            case ast.ClassDef() | ast.FunctionDef():
                names[statement.name] = statement
            case ast.ImportFrom() | ast.Import():
                names.update({alias.asname or alias.name: statement for alias in statement.names})
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                names[name] = value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                names[name] = value
    return names


def definition(target: str) -> Definition | None:
    """The class or function `pkg.module.Name` if it is *defined* at the top of that module; an imported name is not."""
    module, _, name = target.rpartition(".")
    node = _names(module).get(name) if module else None
    return node if isinstance(node, ast.ClassDef | ast.FunctionDef) else None


def look_up(name: str, module: str, depth: int = 8) -> LocatedDefinition | None:
    """Follows a name through assignments and `from x import y` to its definition; None if that is not in reach."""
    statement = _names(module).get(name)
    if not isinstance(statement, ast.ImportFrom):
        return LocatedDefinition(statement, module) if statement is not None else None
    origin = _absolute(statement, module)
    if depth == 0 or origin.split(".")[0] not in ("mlxlab", module.split(".")[0]):
        return None  # another package: its names are not ours to follow
    alias = next(alias.name for alias in statement.names if (alias.asname or alias.name) == name)
    return look_up(alias, origin, depth - 1)


def _absolute(statement: ast.ImportFrom, module: str) -> str:
    if not statement.level:
        return statement.module or ""
    parents = module.split(".")[: -statement.level]
    return ".".join([*parents, statement.module] if statement.module else parents)
