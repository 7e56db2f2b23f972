"""The schema: signatures, read from the source of a target. `Signature.keys` may stand in a config, `runtime` may not.

Parameters before a bare `*` are the keys of a node; the program passes those after it when it builds the component.
"""

import ast
import re
from dataclasses import dataclass
from functools import cache

from mlxlab.config.schema.source import Definition, definition, look_up
from mlxlab.config.schema.types import (
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
    name_components,
)


@dataclass(frozen=True)
class Key:
    """One parameter: its type, whether it is required, and its description under `Args:`."""

    kind: Kind
    required: bool
    doc: str = ""


@dataclass(frozen=True)
class Signature:
    keys: dict[str, Key]
    runtime: frozenset[str]
    doc: str = ""  # the first line of the docstring


@cache
def signature(target: str) -> Signature | None:
    """The signature of `pkg.module.Name`; None unless it is a class or function defined at the top of that module."""
    node = definition(target)
    if node is None:
        return None
    module = target.rpartition(".")[0]
    doc = ast.get_docstring(node) or ""
    if isinstance(node, ast.ClassDef):
        init = next((s for s in node.body if isinstance(s, ast.FunctionDef) and s.name == "__init__"), None)
        doc += "\n\n" + (ast.get_docstring(init) or "") if init else ""
        if init is None:
            return _of_fields(node, module, doc) if _has_fields(node) else Signature({}, frozenset(), _first(doc))
        return _of_arguments(init, module, doc, skip=1)
    return _of_arguments(node, module, doc, skip=0)


def _of_arguments(function: ast.FunctionDef, module: str, doc: str, skip: int) -> Signature:
    arguments = [*function.args.posonlyargs, *function.args.args][skip:]
    optional = {argument.arg for argument in arguments[len(arguments) - len(function.args.defaults) :]}
    if not function.args.defaults:
        optional = set()
    docs = _documented(doc)
    keys = {
        argument.arg: Key(
            name_components(_kind(argument.annotation, module), argument.arg),
            argument.arg not in optional,
            docs.get(argument.arg, ""),
        )
        for argument in arguments
    }
    runtime = frozenset(argument.arg for argument in function.args.kwonlyargs)
    return Signature(keys, runtime, _first(doc))


def _has_fields(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list) or any(
        "NamedTuple" in ast.unparse(parent) for parent in node.bases
    )


def _of_fields(node: ast.ClassDef, module: str, doc: str) -> Signature:
    """A dataclass: its fields; those after `_: KW_ONLY` are passed at run time."""
    docs, keys, runtime, keyword_only = _documented(doc), {}, set(), False
    for field in node.body:
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        name, hint = field.target.id, ast.unparse(field.annotation)
        if hint.endswith("KW_ONLY"):
            keyword_only = True
        elif keyword_only:
            runtime.add(name)
        elif "ClassVar" not in hint and "init=False" not in (ast.unparse(field.value) if field.value else ""):
            kind = name_components(_kind(field.annotation, module), name)
            keys[name] = Key(kind, field.value is None, docs.get(name, ""))
    return Signature(keys, frozenset(runtime), _first(doc))


def _kind(hint: ast.AST | None, module: str) -> Kind:
    """The kind of values that a type hint allows in a config."""
    match hint:
        case ast.Constant(value=None):
            return NoneType()
        case ast.Constant(value=str() as text):  # a forward reference
            return _kind(ast.parse(text, mode="eval").body, module)
        case ast.BinOp(op=ast.BitOr(), left=left, right=right):
            return _any_of([_kind(left, module), _kind(right, module)])
        case ast.Name(id=name):
            return _named(name, module)
        case ast.Attribute(attr=name):
            return _named(name, module) if name in _PLAIN else Component(name)
        case ast.Subscript(value=base, slice=inside):
            return _subscript(ast.unparse(base).rpartition(".")[2], inside, module)
    return Component("")


_PLAIN: dict[str, Kind] = {
    "int": Number(integer=True),
    "float": Number(integer=False),
    "str": Text(),
    "Path": Text(),
    "bool": Bool(),
    "None": NoneType(),
}


def _named(name: str, module: str) -> Kind:
    if name in _PLAIN:
        return _PLAIN[name]
    located = look_up(name, module)
    if located is None or isinstance(located.node, Definition | ast.Import | ast.ImportFrom):
        return Component(name)
    return _kind(located.node, located.module)


def _subscript(base: str, inside: ast.expr, module: str) -> Kind:
    items = inside.elts if isinstance(inside, ast.Tuple) else [inside]
    match base:
        case "Literal":
            return Literal(tuple(ast.literal_eval(item) for item in items))
        case "Annotated":
            return _bounded(_kind(items[0], module), items[1:])
        case "list" | "Sequence" | "Iterable" | "tuple" | "set" | "frozenset":
            return ListOf(_kind(items[0], module))
        case "dict" | "Mapping":
            return Mapping(_kind(items[1], module))
        case "Optional":
            return _any_of([_kind(items[0], module), NoneType()])
        case "Union":
            return _any_of([_kind(item, module) for item in items])
    return Component(base)


def _any_of(kinds: list[Kind]) -> Kind:
    flat: list[Kind] = []
    for kind in kinds:
        flat += kind.options if isinstance(kind, Union) else [kind]
    return Union(tuple(flat))


def _bounded(kind: Kind, bounds: list[ast.expr]) -> Kind:
    for bound in bounds:
        if not isinstance(bound, ast.Call):
            continue
        name = ast.unparse(bound.func).rpartition(".")[2]
        limit = _number(bound.args[0]) if bound.args else 0
        match kind, name:
            case Number(), "Gt" | "Ge" | "Lt" | "Le":
                kind = Number(kind.integer, (*kind.bounds, (name, limit)))
            case ListOf(), "MinLen":
                kind = ListOf(kind.item, int(limit), kind.max_length)
            case ListOf(), "MaxLen":
                kind = ListOf(kind.item, kind.min_length, int(limit))
            case Text(), "IsFile":
                kind = Text(file=True)
    return kind


def _number(node: ast.expr) -> float:
    """The value of `3`, `-1`, `2**64`, `10**12 - 1`."""
    match node:
        case ast.Constant(value=int() | float() as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_number(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _number(left) ** _number(right)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return _number(left) - _number(right)
    raise ValueError(f"a bound that cannot be read without running it: {ast.unparse(node)}")


def _first(doc: str) -> str:
    return doc.strip().partition("\n")[0]


def _documented(doc: str) -> dict[str, str]:
    """`Args:` of a docstring: name -> description on one line."""
    docs: dict[str, str] = {}
    name, inside, indent = "", False, 0
    for line in doc.splitlines():
        if line.strip() in ("Args:", "Attributes:"):
            inside, indent, name = True, len(line) - len(line.lstrip()), ""
        elif inside and line.strip() and len(line) - len(line.lstrip()) <= indent:
            inside = False
        elif inside and (match := re.match(rf"\s{{{indent + 1},{indent + 4}}}(\w+)(?: \(.*?\))?: *(.*)", line)):
            name, docs[match[1]] = match[1], match[2].strip()
        elif inside and name and line.strip():
            docs[name] += " " + line.strip()
    return docs
