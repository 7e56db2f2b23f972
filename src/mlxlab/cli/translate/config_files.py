"""Reads configuration files of old programs: JSON, and Python without executing it."""

import ast
import operator
from collections.abc import Callable
from pathlib import Path

from mlxlab.errors import DataError
from mlxlab.files.untrusted import read_json, read_text

_OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}


def read_json_config(path: Path) -> dict[str, str]:
    """The keys of a JSON object and their values as a command line has them; keys of null are left out.

    Raises InputNotFoundError, and DataError for anything but a JSON object.
    """
    return {
        key: as_argument(value)
        for key, value in read_json(path, dict[str, object]).items()
        if value is not None
    }


def read_python_config(path: Path) -> tuple[dict[str, str], list[str]]:
    """(assignments of literals, other names, functions and statements) of a Python file, which is not executed.

    Read are assignments of the module and of the bodies of its classes, also to an attribute or a key, the keys of
    dictionaries, and the keyword arguments of calls, whose values are literals or sums and products of numbers.

    Raises InputNotFoundError, and DataError for a file that is no Python.
    """
    try:
        tree = ast.parse(read_text(path, max_bytes=2**20))
        values: dict[str, str] = {}
        skipped: list[str] = []
        _read_body(tree.body, values, skipped)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise DataError(f"{path}: not a Python file that can be read ({str(error)[:80]})") from None
    return values, skipped


def as_argument(value: object) -> str:
    """A value as it would stand on a command line."""
    match value:
        case bool():
            return str(value)
        case list() | tuple() if all(isinstance(item, str | int | float) for item in value):
            return " ".join(map(str, value)) or "[]"
    return str(value)


def _read_body(body: list[ast.stmt], values: dict[str, str], skipped: list[str]) -> None:
    for statement in body:
        match statement:
            case ast.ClassDef(body=inner):
                _read_body(inner, values, skipped)
            case ast.Assign(targets=targets, value=value) if all(map(_name, targets)):
                for target in targets:
                    _read_value(_name(target), value, values, skipped)
            case ast.AnnAssign(target=target, value=ast.expr() as value) if _name(target):
                _read_value(_name(target), value, values, skipped)
            case ast.AugAssign(target=target) if _name(target):
                values.pop(_name(target), None)
                skipped.append(_name(target))
            case ast.ImportFrom(names=[ast.alias(name="*")]):
                skipped.append(f"line {statement.lineno}")
            case ast.Import() | ast.ImportFrom() | ast.AnnAssign(value=None) | ast.Pass():
                pass
            case ast.Expr(value=ast.Constant()):
                pass
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                skipped.append(f"{name}()")
            case _:
                skipped.append(f"line {statement.lineno}")
                for node in ast.walk(statement):
                    if isinstance(node, ast.expr) and isinstance(
                        getattr(node, "ctx", None), ast.Store | ast.Del
                    ):
                        values.pop(_name(node), None)


def _name(target: ast.expr) -> str:
    """What an assignment sets: `lr`, `config.lr` and `config["lr"]` are lr; "" for anything else."""
    match target:
        case (
            ast.Name(id=name)
            | ast.Attribute(attr=name)
            | ast.Subscript(slice=ast.Constant(value=str(name)))
        ):
            return name
    return ""


def _read_value(name: str, node: ast.expr, values: dict[str, str], skipped: list[str]) -> None:
    match node:
        case ast.Dict(keys=keys, values=items) if keys:
            for key, item in zip(keys, items, strict=True):
                if isinstance(key, ast.Constant) and isinstance(key.value, str):
                    _read_value(key.value, item, values, skipped)
                else:
                    skipped.append(f"line {node.lineno}")
        case ast.Call(args=[], keywords=keywords) if keywords:
            for keyword in keywords:
                if keyword.arg is not None:
                    _read_value(keyword.arg, keyword.value, values, skipped)
                else:
                    skipped.append(f"line {node.lineno}")
        case _:
            try:
                values[name] = as_argument(_literal(node))
            except (ValueError, TypeError, ArithmeticError):
                values.pop(name, None)
                skipped.append(name)


def _literal(node: ast.expr) -> object:
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _literal(node.left), _literal(node.right)
        if not isinstance(left, int | float) or not isinstance(right, int | float):
            raise ValueError("expected numbers")
        return _OPERATORS[type(node.op)](left, right)
    return ast.literal_eval(node)
