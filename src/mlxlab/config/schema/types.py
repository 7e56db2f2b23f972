"""Types of config values, from their type hints. Shown by `--help` and in error messages."""

from dataclasses import dataclass, field, replace

MISSING = "???"  # OmegaConf's mark of a mandatory value


class Unresolved:
    """Replaces an interpolation that could not be resolved; its error is already reported."""


@dataclass(frozen=True)
class Number:
    """int or float. A whole number is accepted for a float; true is never a number."""

    integer: bool
    bounds: tuple[tuple[str, float], ...] = ()  # ("Ge", 1), ("Lt", 2)


@dataclass(frozen=True)
class Text:
    """str, or a Path in the code."""

    file: bool = False  # must be a regular file if it exists


@dataclass(frozen=True)
class Bool:
    pass


@dataclass(frozen=True)
class NoneType:
    pass


@dataclass(frozen=True)
class Literal:
    options: tuple[object, ...]


@dataclass(frozen=True)
class ListOf:
    item: "Kind"
    min_length: int = 0
    max_length: int | None = None


@dataclass(frozen=True)
class Mapping:
    value: "Kind"


@dataclass(frozen=True)
class Component:
    """A node with a `_target_`. `name` is its kind: the annotated type, or the parameter if that is uninformative."""

    name: str


@dataclass(frozen=True)
class Union:
    options: "tuple[Kind, ...]" = field(default=())


Kind = Number | Text | Bool | NoneType | Literal | ListOf | Mapping | Component | Union


def component_names(kind: Kind) -> frozenset[str]:
    """The kinds of component that stand anywhere in `kind`."""
    match kind:
        case Component(name=name):
            return frozenset({name})
        case Union(options=options):
            return frozenset().union(*map(component_names, options))
        case ListOf(item=inner) | Mapping(value=inner):
            return component_names(inner)
    return frozenset()


def name_components(kind: Kind, parameter: str) -> Kind:
    """`kind`, with components of an uninformative type (`Any`, `Callable`) called after their parameter."""
    match kind:
        case Component(name="Any" | "object" | "Callable" | ""):
            return Component(parameter)
        case Union(options=options):
            return Union(tuple(name_components(option, parameter) for option in options))
        case ListOf(item=item):
            return replace(kind, item=name_components(item, parameter))
        case Mapping(value=value):
            return Mapping(name_components(value, parameter))
    return kind


_SIGNS = {"Gt": ">", "Ge": ">=", "Lt": "<", "Le": "<="}


def describe(kind: Kind) -> str:
    """`a whole number >= 1`, `one of gelu, swiglu`, `a list of text (not empty)`, ..."""
    match kind:
        case Number():
            return ("a whole number" if kind.integer else "a number") + _bounds(kind.bounds)
        case Text():
            return "a file" if kind.file else "text"
        case Bool():
            return "true or false"
        case NoneType():
            return "null"
        case Literal():
            return ("one of " if len(kind.options) > 1 else "") + ", ".join(map(shown, kind.options))
        case ListOf():
            return f"a list{_length(kind)}: {describe(kind.item)}"
        case Mapping():
            return f"a mapping of names to {describe(kind.value)}"
        case Component():
            return "a component (a mapping with a _target_)"
        case Union():
            return " or ".join(map(describe, kind.options))


def _length(kind: ListOf) -> str:
    if kind.min_length == kind.max_length:
        return f" of exactly {kind.min_length}"
    minimum = f" with at least {kind.min_length} item{'s' if kind.min_length > 1 else ''}" if kind.min_length else ""
    return minimum + (f" and at most {kind.max_length}" if kind.max_length is not None else "")


def _bounds(bounds: tuple[tuple[str, float], ...]) -> str:
    terms = [f"{_SIGNS[name]} {limit:.15g}" for name, limit in bounds if abs(limit) < 1e12]
    return (" " + " and ".join(terms)) if terms else ""


def shown(value: object) -> str:
    """A value as one types it, truncated to 60 characters."""
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    text = repr(value) if isinstance(value, (list, dict)) else str(value)
    text = text.replace("\n", "\\n")
    return text if len(text) <= 60 else text[:57] + "..."
