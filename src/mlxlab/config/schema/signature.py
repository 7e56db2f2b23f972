"""The schema: signatures, read from the source of a target without importing or running it.

The keys of a node are the parameters before a bare `*` and the fields of `Options` in `**options: Unpack[Options]`,
a TypedDict; the program passes the parameters after the `*` when it builds the component.
Type hints become the objects of `typing`, made of the names known here; nothing in the source is evaluated.
"""

import ast
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from types import GenericAlias, NoneType, UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

from mlxlab.config.schema.source import definition, look_up
from mlxlab.constraints import Bound, Ge, Gt, IsFile, Le, Lt, MaxLen, MinLen

_TYPES = {"int": int, "float": float, "str": str, "Path": str, "bool": bool, "None": NoneType}
_LISTS = ("list", "Sequence", "Iterable", "tuple", "set", "frozenset")
_BOUNDS: dict[str, Callable[..., Bound]] = {
    bound.__name__: bound for bound in (Gt, Ge, Lt, Le, MinLen, MaxLen, IsFile)
}
_NUMERIC, _LENGTH = (Gt, Ge, Lt, Le), (MinLen, MaxLen)
_LIMITS: dict[object, tuple[type, ...]] = {
    int: _NUMERIC,
    float: _NUMERIC,
    str: (*_LENGTH, IsFile),
    list: _LENGTH,
}
_UNINFORMATIVE = (
    "Any",
    "object",
    "Callable",
)  # types of components that are called after their parameter


@dataclass(frozen=True)
class Component:
    """The type hint of a node with a `_target_`: `name` is the class, or the parameter if that says nothing."""

    name: str


@dataclass(frozen=True)
class Record:
    """The type hint of a mapping without a `_target_`: the TypedDict at `target` has its keys."""

    target: str


@dataclass(frozen=True)
class Key:
    """One parameter: its type hint, whether it is required, and its description under `Args:`.

    `hint` consists of `int`, `float`, `str` (also for a path), `bool`, `NoneType`, `Literal`, `Union`, `list[T]`,
    `dict[str, T]`, `Annotated[T, *bounds]`, `Component` and `Record`; `object` if it cannot be read, which allows any
    value.
    """

    hint: object
    required: bool
    doc: str = ""


@dataclass(frozen=True)
class Signature:
    """`keys` are allowed in a config, `runtime` not; `doc` is the first line of the docstring."""

    keys: dict[str, Key]
    runtime: frozenset[str]
    doc: str = ""


@cache
def signature(target: str) -> Signature | None:
    """The signature of `pkg.module.Name`; None unless it is a class or function defined at the top of that module."""
    module, _, name = target.rpartition(".")
    node = definition(name, module) if module and name.isidentifier() else None
    if not isinstance(node, ast.ClassDef | ast.FunctionDef):
        return None
    doc = ast.get_docstring(node) or ""
    if isinstance(node, ast.FunctionDef):
        keys, runtime = _arguments(node, module, skip=0)
    elif init := next(
        (s for s in node.body if isinstance(s, ast.FunctionDef) and s.name == "__init__"), None
    ):
        doc += "\n\n" + (ast.get_docstring(init) or "")
        keys, runtime = _arguments(init, module, skip=1)
    else:
        keys, runtime = _fields(node, module)
    docs = _documented(doc)
    keys = {name: replace(key, doc=docs.get(name, key.doc)) for name, key in keys.items()}
    return Signature(keys, frozenset(runtime), doc.strip().partition("\n")[0])


def alternatives(hint: object) -> tuple[object, ...]:
    """The options of a union; of another type hint, itself."""
    return get_args(hint) if is_union(hint) else (hint,)


def is_union(hint: object) -> bool:
    """Whether a hint is a `Union` or `A | B`, which are equal: the caches of `typing` return either."""
    return get_origin(hint) in (Union, UnionType)


def unwrap(hint: object) -> tuple[object, tuple[Bound, ...]]:
    """The type in an `Annotated`, and its bounds."""
    return (get_args(hint)[0], get_args(hint)[1:]) if get_origin(hint) is Annotated else (hint, ())


def _arguments(
    function: ast.FunctionDef, module: str, skip: int
) -> tuple[dict[str, Key], set[str]]:
    arguments = [*function.args.posonlyargs, *function.args.args][skip:]
    required = len(arguments) - len(function.args.defaults)
    keys = {
        arg.arg: Key(_read(arg.annotation, module, arg.arg), n < required)
        for n, arg in enumerate(arguments)
    }
    return keys | _options(function.args.kwarg, module), {
        argument.arg for argument in function.args.kwonlyargs
    }


def _options(argument: ast.arg | None, module: str) -> dict[str, Key]:
    """The fields of `Options`, for an argument `**options: Unpack[Options]`."""
    match argument:
        case ast.arg(
            annotation=ast.Subscript(value=ast.Name(id="Unpack"), slice=ast.Name(id=name))
        ):
            node, home = look_up(name, module)
            options = signature(f"{home}.{node.name}") if isinstance(node, ast.ClassDef) else None
            return options.keys if options is not None else {}
    return {}


def _fields(node: ast.ClassDef, module: str) -> tuple[dict[str, Key], set[str]]:
    """The fields of a dataclass, NamedTuple or TypedDict; those after `_: KW_ONLY` are passed at run time."""
    keys, runtime = dict[str, Key](), set[str]()
    keyword_only = False
    declared = " ".join(map(ast.unparse, [*node.decorator_list, *node.bases]))
    for parent in _parent_records(node, module):
        inherited = signature(parent)
        keys |= inherited.keys if inherited else {}
        declared += " TypedDict"
    has_fields = re.search("dataclass|NamedTuple|TypedDict", declared)
    for field in node.body if has_fields else ():
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        name, hint = field.target.id, ast.unparse(field.annotation)
        if hint.endswith("KW_ONLY"):
            keyword_only = True
        elif keyword_only:
            runtime.add(name)
        elif "ClassVar" not in hint and "init=False" not in (
            ast.unparse(field.value) if field.value else ""
        ):
            match field.annotation:
                case ast.Subscript(value=ast.Name(id="NotRequired"), slice=inner):
                    keys[name] = Key(_read(inner, module, name), required=False)
                case annotation:
                    keys[name] = Key(_read(annotation, module, name), field.value is None)
    return keys, runtime


def _parent_records(node: ast.ClassDef, module: str) -> list[str]:
    """The full names of the TypedDicts that a class inherits from."""
    parents = []
    for base in node.bases:
        parent, home = look_up(base.id, module) if isinstance(base, ast.Name) else (None, module)
        if isinstance(parent, ast.ClassDef) and "TypedDict" in map(ast.unparse, parent.bases):
            parents.append(f"{home}.{parent.name}")
    return parents


def _read(hint: ast.expr | None, module: str, parameter: str) -> object:
    try:
        return _type_hint(hint, module, parameter)
    except (
        ValueError,
        TypeError,
        IndexError,
        SyntaxError,
        RecursionError,
    ):  # a member of an enum, a recursive alias
        return object


def _type_hint(hint: ast.expr | None, module: str, parameter: str) -> object:
    """The annotation of a parameter as an object of `typing`; other classes than those of values are components."""
    match hint:
        case None:
            return object
        case ast.Constant(value=None):
            return NoneType
        case ast.Constant(value=str() as text):  # a forward reference
            return _type_hint(ast.parse(text, mode="eval").body, module, parameter)
        case ast.BinOp(op=ast.BitOr(), left=left, right=right):
            return Union[*(_type_hint(side, module, parameter) for side in (left, right))]
        case ast.Subscript(value=ast.Name(id=name) | ast.Attribute(attr=name), slice=inside):
            items = inside.elts if isinstance(inside, ast.Tuple) else [inside]
            return _generic(name, items, module, parameter)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            if name in _TYPES:
                return _TYPES[name]
            node, home = look_up(name, module) if isinstance(hint, ast.Name) else (None, module)
            is_record = isinstance(node, ast.ClassDef) and (
                "TypedDict" in map(ast.unparse, node.bases) or _parent_records(node, home)
            )
            if isinstance(node, ast.ClassDef) and is_record:
                return Record(f"{home}.{node.name}")
            return (
                _type_hint(node, home, parameter)
                if isinstance(node, ast.expr)
                else _component(name, parameter)
            )
    return Component(parameter)


def _generic(name: str, items: list[ast.expr], module: str, parameter: str) -> object:
    """The type hint `name[*items]`."""
    if name == "Literal":
        return Literal[*map(ast.literal_eval, items)]
    if name == "Annotated":
        options, bounds = (
            alternatives(_type_hint(items[0], module, parameter)),
            list(_bounds(items[1:])),
        )
        return Union[*(_bounded(option, bounds) for option in options)]
    hints = [_type_hint(item, module, parameter) for item in items]
    if name in _LISTS:
        return GenericAlias(list, hints[0])
    if name in ("dict", "Mapping"):
        return GenericAlias(dict, (str, hints[1]))
    if name in ("Optional", "Union"):
        return Union[*hints, NoneType] if name == "Optional" else Union[*hints]
    return _component(name, parameter)


def _component(name: str, parameter: str) -> Component:
    return Component(parameter if name in _UNINFORMATIVE else name)


def _bounded(hint: object, bounds: list[Bound]) -> object:
    """The hint with those of the bounds that its type can keep."""
    kind = unwrap(hint)[0]
    own = [
        bound for bound in bounds if isinstance(bound, _LIMITS.get(get_origin(kind) or kind, ()))
    ]
    return Annotated[hint, *own] if own else hint


def _bounds(nodes: list[ast.expr]) -> Iterator[Bound]:
    """Those bounds whose limit is a number in the source; the target must check others itself."""
    for node in nodes:
        match node:
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in _BOUNDS:
                with suppress(ValueError):
                    yield _BOUNDS[name](
                        *map(_number, [*node.args, *(keyword.value for keyword in node.keywords)])
                    )


def _number(node: ast.expr) -> float:
    """The value of `3`, `-1`, `2**64`, `10**12 - 1`."""
    match node:
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _number(left) ** _number(right)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return _number(left) - _number(right)
    number: float = ast.literal_eval(node)
    return number


def _documented(doc: str) -> dict[str, str]:
    """`Args:` of a docstring: name -> description on one line."""
    sections = re.findall(r"^(?:Args|Attributes):\n((?: .*\n?|\n)*)", doc, re.MULTILINE)
    entries = re.findall(r"^ {4}(\w+): *(.*(?:\n {5}.*)*)", "\n".join(sections), re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}
