"""Types of config values, from their type hints. Shown by `--help` and in error messages."""

from dataclasses import dataclass

MISSING = "???"  # OmegaConf's mark of a mandatory value
UNRESOLVED = object()  # an interpolation that could not be resolved; its error is already reported


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
    options: "tuple[Kind, ...]"


Kind = Number | Text | Literal | ListOf | Mapping | Component | Union

NULL = Literal((None,))
BOOLEAN = Literal((True, False))

_SIGNS = {"Gt": ">", "Ge": ">=", "Lt": "<", "Le": "<="}


def alternatives(kind: Kind) -> tuple[Kind, ...]:
    """The options of a union; of another kind, itself."""
    return kind.options if isinstance(kind, Union) else (kind,)


def component_names(kind: Kind) -> frozenset[str]:
    """The kinds of component anywhere in `kind`."""
    match kind:
        case Union(options=options):
            return frozenset().union(*map(component_names, options))
        case ListOf(item=inner) | Mapping(value=inner):
            return component_names(inner)
    return frozenset({kind.name} if isinstance(kind, Component) else ())


def describe(kind: Kind) -> str:
    """`a whole number >= 1`, `one of gelu, swiglu`, `a list of text (not empty)`, ..."""
    match kind:
        case Number(integer=integer, bounds=bounds):
            limits = [f"{_SIGNS[name]} {limit:.15g}" for name, limit in bounds if abs(limit) < 1e12]
            return f"{'a whole number' if integer else 'a number'} {' and '.join(limits)}".rstrip()
        case Text(file=file):
            return "a file" if file else "text"
        case Literal(options=options):
            names = [shown(option) for option in options]
            return " or ".join(names) if len(names) == 1 or kind == BOOLEAN else "one of " + ", ".join(names)
        case ListOf(item=item, min_length=low, max_length=high):
            length = f" with at least {low} item{'s' if low > 1 else ''}" if low else ""
            length = (
                f" of exactly {low}" if low == high else length + (f" and at most {high}" if high is not None else "")
            )
            return f"a list{length}: {describe(item)}"
        case Mapping(value=value):
            return f"a mapping of names to {describe(value)}"
        case Component():
            return "a component (a mapping with a _target_)"
        case Union(options=options):
            return " or ".join(map(describe, options))


def shown(value: object) -> str:
    """A value as one types it, truncated to 60 characters."""
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    text = (repr(value) if isinstance(value, list | dict) else str(value)).replace("\n", "\\n")
    return text if len(text) <= 60 else text[:57] + "..."
