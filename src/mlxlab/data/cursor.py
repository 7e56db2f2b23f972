"""Checks a saved position before anything moves to it: a checkpoint may come from anyone."""

from collections.abc import Mapping
from typing import TypeVar

from mlxlab.errors import DataError
from mlxlab.files.shape import ShapeError, validate

T = TypeVar("T")


def check_position(position: object, shape: type[T]) -> T:
    """`position` as `shape`, any type that `mlxlab.files.shape.validate` knows; raises DataError for another."""
    try:
        checked: T = validate(position, shape)
    except ShapeError as error:
        raise DataError(f"the saved position is malformed: {error}") from None
    return checked


def load_cursor(state: Mapping[str, object], shape: type[T], fingerprint: str) -> T:
    """`state` as `shape`, a `TypedDict` with the key `fingerprint`.

    Args:
        fingerprint: of the data to be positioned.

    Raises:
        DataError: the state is of another shape, or was saved with other data.
    """
    cursor = check_position(dict(state), shape)
    if state["fingerprint"] != fingerprint:
        raise DataError(
            f"the saved position is in other data: expected fingerprint {fingerprint}, got {state['fingerprint']}"
        )
    return cursor


def check_example(example: int, num_examples: int) -> None:
    """Raises DataError unless an epoch of `num_examples` has a next example after `example` of them."""
    if not 0 <= example < num_examples:
        raise DataError(f"the saved position is malformed: expected an example in 0..{num_examples - 1}, got {example}")
