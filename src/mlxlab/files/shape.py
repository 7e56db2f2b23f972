"""Checks decoded JSON against a Python type."""

import functools
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal, Union, get_args, get_origin, is_typeddict

import annotated_types as at

_BOUNDS: dict[type, Callable[[Any, Any], bool]] = {
    at.Ge: lambda value, bound: value >= bound.ge,
    at.Gt: lambda value, bound: value > bound.gt,
    at.Le: lambda value, bound: value <= bound.le,
    at.Lt: lambda value, bound: value < bound.lt,
    at.MinLen: lambda value, bound: len(value) >= bound.min_length,
    at.MaxLen: lambda value, bound: len(value) <= bound.max_length,
    at.Predicate: lambda value, bound: bound.func(value),
}


class ShapeError(ValueError):
    """A value is not of the expected shape. `path` leads to it: `history[3].step`."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.path = path


def validate(value: Any, shape: Any, path: str = "") -> Any:
    """`value`, if it is of `shape`; a list becomes a tuple where the shape says so.

    Shapes are `Any` and `object` (anything), `None`, `bool`, `int`, `float` (an int will do), `str`, `Literal`,
    unions, `list[T]`, `tuple[T, ...]`, `tuple[A, B]`, `dict[str, T]`, `TypedDict` (unknown keys are refused), and
    `Annotated` with the bounds of `annotated_types`.

    Raises:
        ShapeError: with the path to the first value that is of another shape.
    """
    origin, args = get_origin(shape), get_args(shape)
    if shape is Any or shape is object:
        return value
    if origin is Annotated:
        result = validate(value, args[0], path)
        for bound in args[1:]:
            if type(bound) in _BOUNDS and not _BOUNDS[type(bound)](result, bound):
                raise _mismatch(path, str(bound), value)
        return result
    if origin in (Union, types.UnionType):
        return _validate_union(value, args, path)
    if origin is Literal:
        if not any(value == option and type(value) is type(option) for option in args):
            raise _mismatch(path, f"one of {', '.join(map(repr, args))}", value)
        return value
    if is_typeddict(shape):
        return _validate_fields(value, shape, path)
    if type(value) is int and shape is float:
        return value
    kind: Any = list if origin is tuple else origin or shape or type(None)
    if type(value) is not kind:
        raise _mismatch(path, "null" if shape is None else kind.__name__, value)
    if origin is dict:
        return {key: validate(item, args[1], _join(path, key)) for key, item in value.items()}
    if origin in (list, tuple):
        shapes = args[:1] * len(value) if origin is list or args[1:] == (...,) else args
        if len(value) != len(shapes):
            raise ShapeError(path, f"expected {len(shapes)} items, got {len(value)}")
        return origin(validate(item, shapes[n], f"{path}[{n}]") for n, item in enumerate(value))
    return value


def _validate_union(value: object, options: tuple[object, ...], path: str) -> object:
    errors = []
    for option in options:
        try:
            return validate(value, option, path)
        except ShapeError as error:
            errors.append(error)
    raise max(errors, key=lambda error: len(error.path))  # the option that agreed the furthest


def _validate_fields(value: object, shape: Any, path: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _mismatch(path, "dict", value)
    fields = _fields(shape)
    if missing := sorted(shape.__required_keys__ - value.keys()):
        raise ShapeError(path, f"{missing[0]!r} is missing")
    if unknown := sorted(value.keys() - fields.keys()):
        raise ShapeError(path, f"unknown key {unknown[0][:40]!r}")
    return {key: validate(item, fields[key], _join(path, key)) for key, item in value.items()}


@functools.cache
def _fields(shape: Any) -> dict[str, object]:
    """The types of the keys of a `TypedDict`."""
    hints = typing.get_type_hints(shape, include_extras=True)
    wrappers = (typing.NotRequired, typing.Required)
    return {key: get_args(hint)[0] if get_origin(hint) in wrappers else hint for key, hint in hints.items()}


def _mismatch(path: str, expected: str, value: object) -> ShapeError:
    return ShapeError(path, f"expected {expected}, got {repr(value)[:60]}")


def _join(path: str, key: str) -> str:
    return f"{path}.{key[:40]}" if path else key[:40]
