"""Types with bounds, for the signatures that are the schema of the configuration. May be imported by anyone.

`config` reads these names from the *source* of a signature, so nothing heavy is imported to check a value. A bound is a
number that the value must be greater than (`Gt`), at least (`Ge`), less than (`Lt`) or at most (`Le`), or a number of
items (`MinLen`, `MaxLen`).
"""

from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True)
class Gt:
    bound: float


@dataclass(frozen=True)
class Ge:
    bound: float


@dataclass(frozen=True)
class Lt:
    bound: float


@dataclass(frozen=True)
class Le:
    bound: float


@dataclass(frozen=True)
class MinLen:
    """A list with at least so many items: `Annotated[list[int], MinLen(1)]`."""

    bound: int


@dataclass(frozen=True)
class MaxLen:
    bound: int


@dataclass(frozen=True)
class IsFile:
    """Text that names a file: no folder, device, pipe or `-`. That it is missing is found where it is read."""


@dataclass(frozen=True)
class KeysOf:
    """`**rest: Annotated[Any, KeysOf("pkg.module.Name")]`: takes the keys of Name too, and passes them on to it."""

    target: str


Count = Annotated[int, Ge(0), Le(10**12)]  # 0, 1, 2, ...
Size = Annotated[int, Ge(1), Le(10**12)]  # 1, 2, 3, ...
Fraction = Annotated[float, Ge(0), Le(1)]  # [0, 1]
Share = Annotated[float, Ge(0), Lt(1)]  # [0, 1): a dropout, a held-out part
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Seed = Annotated[int, Ge(0), Lt(2**64)]
FilePath = Annotated[str, IsFile()]
