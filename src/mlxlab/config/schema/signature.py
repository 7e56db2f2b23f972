"""The schema of a config node and of a command: the signature of its target, read from source text.

The keys are the parameters before a bare `*`, and the fields of `Options` in `**options: Unpack[Options]`; the program
passes the parameters after the `*` when it builds the component. Type hints are evaluated, with the names of `typing`
and the bounds as they are, and with placeholders for the classes of the package: nothing heavy is imported.
"""

import ast
import builtins
import importlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import UnionType
from typing import (
    Annotated,
    Any,
    ForwardRef,
    Literal,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
)

from mlxlab.config.schema.source import find_statement, read_imports

_REAL_MODULES = (
    "typing",
    "collections.abc",
    "pathlib",
    "annotated_types",
    "mlxlab.schema.constraints",
)
_SECTION = re.compile(r"^(?:Args|Attributes):\n((?: .*\n?|\n)*)", re.MULTILINE)
_ENTRY = re.compile(r"^ {4}(\w+): *(.*(?:\n {5}.*)*)", re.MULTILINE)
_FIELDS = re.compile("dataclass|NamedTuple|TypedDict")


@dataclass(frozen=True)
class Placeholder:
    """Stands for the class `target` in a type hint."""

    target: str

    def __or__(self, other: object) -> object:
        return Union[self, other]  # noqa: UP007

    def __ror__(self, other: object) -> object:
        return Union[other, self]  # noqa: UP007

    def __getitem__(self, parameters: object) -> "Placeholder":
        return self

    def __getattr__(self, name: str) -> "Placeholder":
        if name.startswith("__"):  # `typing` asks for those of its own classes.
            raise AttributeError(name)
        return Component(f"{self.target}.{name}")


class Component(Placeholder):
    """A config node with a `_target_`; in a signature, one of any kind."""


class Record(Placeholder):
    """A mapping without a `_target_`: `target` is a TypedDict."""


@dataclass(frozen=True)
class Parameter:
    """One key: its type hint, whether it must be given, its default as it is written, and its description.

    The hint is `object` if it cannot be read, which allows any value.
    """

    hint: object
    required: bool
    default: str = ""
    doc: str = ""


@dataclass(frozen=True)
class Signature:
    """`keys` may be set, `runtime` are passed by the program; `doc` is the first line of the docstring.

    Args:
        variadic: the name of `*names`, after which every parameter is a key.
        prefix: the name of `**data`, which stands for all keys `data.x`.
    """

    keys: dict[str, Parameter]
    runtime: frozenset[str] = frozenset()
    doc: str = ""
    variadic: str = ""
    prefix: str = ""


@cache
def read_signature(target: str) -> Signature | None:
    """The signature of `pkg.module.Name`; None unless it is a class or function at the top of that module."""
    module, _, name = target.rpartition(".")
    if not module or not name.isidentifier():
        return None
    node = find_statement(name, module)
    if not isinstance(node, ast.FunctionDef | ast.ClassDef):
        return None
    doc = ast.get_docstring(node) or ""
    if isinstance(node, ast.FunctionDef):
        return _read_function(node, module, doc, skipped=0)
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            of_init = ast.get_docstring(statement) or ""
            return _read_function(statement, module, f"{doc}\n\n{of_init}", skipped=1)
    return _read_fields(node, module, doc)


def _read_function(function: ast.FunctionDef, module: str, doc: str, skipped: int) -> Signature:
    syntax = function.args
    arguments = syntax.args
    defaults = [None] * (len(arguments) - len(syntax.defaults)) + list(syntax.defaults)
    pairs = list(zip(arguments, defaults, strict=True))[skipped:]
    runtime = list(zip(syntax.kwonlyargs, syntax.kw_defaults, strict=True))
    variadic = ""
    if syntax.vararg:
        variadic = syntax.vararg.arg
        pairs += runtime
        runtime = []

    keys = {
        argument.arg: _read_parameter(argument.annotation, default, module)
        for argument, default in pairs
    }
    prefix = ""
    if syntax.kwarg:
        options = _keys_of(find_classes(read_hint(syntax.kwarg.annotation, module)))
        keys |= options  # These are of `Options` in `**options: Unpack[Options]`.
        if not options:
            prefix = syntax.kwarg.arg
    return Signature(
        keys=_documented(keys, doc),
        runtime=frozenset(argument.arg for argument, _ in runtime),
        doc=doc.strip().partition("\n")[0],
        variadic=variadic,
        prefix=prefix,
    )


def _read_parameter(
    annotation: ast.expr | None, default: ast.expr | None, module: str
) -> Parameter:
    hint = read_hint(annotation, module)
    if default is not None:
        return Parameter(hint, required=False, default=ast.unparse(default))
    return Parameter(hint, required=get_origin(hint) is not NotRequired)


def _keys_of(classes: Iterable[Placeholder]) -> dict[str, Parameter]:
    keys: dict[str, Parameter] = {}
    for each in classes:
        known = read_signature(each.target)
        if known is not None:
            keys |= known.keys
    return keys


def _read_fields(node: ast.ClassDef, module: str, doc: str) -> Signature:
    """The fields of a dataclass, NamedTuple or TypedDict."""
    keys = _keys_of(_parent_records(node, module))
    declared = " ".join(map(ast.unparse, [*node.decorator_list, *node.bases]))
    has_fields = keys or _FIELDS.search(declared)
    for statement in node.body:
        if has_fields and isinstance(statement, ast.AnnAssign):
            name = ast.unparse(statement.target)
            keys[name] = _read_parameter(statement.annotation, statement.value, module)
    return Signature(_documented(keys, doc), doc=doc.partition("\n")[0])


def _parent_records(node: ast.ClassDef, module: str) -> list[Record]:
    """The TypedDicts that a class inherits from."""
    bases = [read_hint(base, module) for base in node.bases if isinstance(base, ast.Name)]
    return [base for base in bases if isinstance(base, Record)]


def _documented(keys: dict[str, Parameter], doc: str) -> dict[str, Parameter]:
    """The keys with their descriptions in the `Args:` of a docstring."""
    docs = dict(_ENTRY.findall("\n".join(_SECTION.findall(doc))))
    return {
        name: replace(key, doc=" ".join(docs.get(name, key.doc).split()))
        for name, key in keys.items()
    }


def read_hint(node: ast.expr | None, module: str) -> object:
    """The type hint that an expression of a module means."""
    if node is None:
        return object
    if isinstance(node, ast.Constant) and isinstance(node.value, str):  # A forward reference.
        try:
            return read_hint(ast.parse(node.value, mode="eval").body, module)
        except SyntaxError:
            return object
    code = compile(ast.Expression(node), module, "eval")
    try:
        return eval(code, {"__builtins__": {}}, _Namespace(module))
    except (NameError, TypeError, AttributeError, ValueError, RecursionError):
        return object


class _Namespace(dict[str, object]):
    """What each name means in the type hints of a module."""

    def __init__(self, module: str) -> None:
        self.module = module

    def __missing__(self, name: str) -> object:
        return _resolve(name, self.module)


def _resolve(name: str, module: str) -> object:
    target = f"{module}.{name}"
    definition = find_statement(name, module)
    if isinstance(definition, ast.ClassDef):
        bases = map(ast.unparse, definition.bases)
        is_record = "TypedDict" in bases or _parent_records(definition, module)
        if is_record:
            return Record(target)
        return Component(target)
    value = getattr(definition, "value", None)
    if value is not None:  # The definition is `Name = ...` or `type Name = ...`.
        return read_hint(value, module)
    origin, original = read_imports(module).get(name, ("", ""))
    if origin in _REAL_MODULES:
        return getattr(importlib.import_module(origin), original)
    if origin.split(".")[0] in ("mlxlab", module.split(".")[0]):
        return _resolve(original, origin)
    return getattr(builtins, name, Component(f"{origin or module}.{original or name}"))


def unwrap(hint: object) -> tuple[Any, tuple[object, ...]]:
    """The type in an `Annotated`, and its bounds; any type where it names itself."""
    if isinstance(hint, str | ForwardRef):
        return object, ()
    if get_origin(hint) is Annotated:
        return get_args(hint)[0], get_args(hint)[1:]
    if get_origin(hint) in (NotRequired, Required):
        return unwrap(get_args(hint)[0])
    return hint, ()


def alternatives(hint: object) -> list[object]:
    """The members of a union; of another hint, itself."""
    kind, _ = unwrap(hint)
    if get_origin(kind) in (Union, UnionType):
        return list(get_args(kind))
    return [hint]


def is_list(kind: object) -> bool:
    """Whether a YAML list is meant: any sequence or set."""
    origin = get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, Iterable) and not is_mapping(kind)


def is_mapping(kind: object) -> bool:
    origin = get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def literals(hint: object) -> tuple[Any, ...]:
    """The values of a `Literal`."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    return ()


def find_classes(hint: object) -> list[Placeholder]:
    """The components and records anywhere in a type hint."""
    if isinstance(hint, Placeholder):
        return [hint]
    return [found for inner in get_args(hint) for found in find_classes(inner)]
