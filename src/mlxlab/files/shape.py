"""Checks decoded JSON against a Python type, so that what was read is what the rest of the code believes it is."""

import functools
import types
import typing
from typing import Annotated, Any, Literal, Union, get_args, get_origin, is_typeddict

import annotated_types as at


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
            _check_bound(result, bound, path)
        return result
    if origin in (Union, types.UnionType):
        return _validate_union(value, args, path)
    if origin is Literal:
        if not any(value == option and type(value) is type(option) for option in args):
            _fail(path, f"one of {', '.join(map(repr, args))}", value)
        return value
    if is_typeddict(shape):
        return _validate_fields(value, shape, path)
    if origin is dict:
        items = _expect(value, dict, path)
        return {key: validate(item, args[1], _join(path, key)) for key, item in items.items()}
    if origin is list:
        return [validate(item, args[0], f"{path}[{n}]") for n, item in enumerate(_expect(value, list, path))]
    if origin is tuple:
        return _validate_tuple(_expect(value, list, path), args, path)
    if shape is float and type(value) is int:
        return value
    return _expect(value, type(None) if shape is None else shape, path)


def _validate_union(value: Any, options: tuple[Any, ...], path: str) -> Any:
    errors = []
    for option in options:
        try:
            return validate(value, option, path)
        except ShapeError as error:
            errors.append(error)
    raise max(errors, key=lambda error: len(error.path))  # the option that agreed the furthest


def _validate_tuple(items: list[Any], shapes: tuple[Any, ...], path: str) -> tuple[Any, ...]:
    if len(shapes) == 2 and shapes[1] is Ellipsis:
        shapes = (shapes[0],) * len(items)
    if len(items) != len(shapes):
        raise ShapeError(path, f"expected {len(shapes)} items, got {len(items)}")
    return tuple(
        validate(item, shape, f"{path}[{n}]") for n, (item, shape) in enumerate(zip(items, shapes, strict=True))
    )


def _validate_fields(value: Any, shape: Any, path: str) -> dict[str, Any]:
    fields, mapping = _hints(shape), _expect(value, dict, path)
    missing = sorted(shape.__required_keys__ - mapping.keys())
    if missing:
        raise ShapeError(path, f"{missing[0]!r} is missing")
    unknown = sorted(mapping.keys() - fields.keys())
    if unknown:
        raise ShapeError(path, f"unknown key {unknown[0][:40]!r}")
    return {key: validate(item, _inner(fields[key]), _join(path, key)) for key, item in mapping.items()}


@functools.cache
def _hints(shape: Any) -> dict[str, Any]:
    return typing.get_type_hints(shape, include_extras=True)


def _inner(shape: Any) -> Any:
    return get_args(shape)[0] if get_origin(shape) in (typing.NotRequired, typing.Required) else shape


def _expect(value: Any, kind: type, path: str) -> Any:
    if type(value) is not kind:
        _fail(path, "null" if kind is type(None) else kind.__name__, value)
    return value


def _check_bound(value: Any, bound: Any, path: str) -> None:
    match bound:
        case at.Ge(limit):
            good = value >= limit
        case at.Gt(limit):
            good = value > limit
        case at.Le(limit):
            good = value <= limit
        case at.Lt(limit):
            good = value < limit
        case at.MinLen(limit):
            good = len(value) >= limit
        case at.MaxLen(limit):
            good = len(value) <= limit
        case at.Predicate(holds):
            good = holds(value)
        case _:
            good = True
    if not good:
        _fail(path, str(bound), value)


def _fail(path: str, expected: str, value: Any) -> typing.NoReturn:
    raise ShapeError(path, f"expected {expected}, got {repr(value)[:60]}")


def _join(path: str, key: str) -> str:
    return f"{path}.{key[:40]}" if path else key[:40]
