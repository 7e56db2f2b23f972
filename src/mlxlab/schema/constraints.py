"""Types with bounds for signatures, from whose *source* `config` reads these names as the schema of a config."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen, Predicate


@dataclass(frozen=True)
class IsFile:
    """Text that names a file, not a folder, device, pipe or `-`. Whether it exists is checked on reading."""


Count = Annotated[int, Ge(0), Le(10**12)]  # 0, 1, 2, ...
Size = Annotated[int, Ge(1), Le(10**12)]  # 1, 2, 3, ...
Layers = Annotated[int, Ge(1), Le(10_000)]  # A published model gets one module for each.
ModelSize = Annotated[int, Ge(1), Le(2**30)]  # dimensions, tokens and heads of a published model
Fraction = Annotated[float, Ge(0), Le(1)]  # [0, 1]
Share = Annotated[float, Ge(0), Lt(1)]  # [0, 1): a dropout rate, a validation fraction
Probability = Annotated[float, Ge(0), Le(1)]
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Seed = Annotated[int, Ge(0), Lt(2**64)]
FilePath = Annotated[str, IsFile()]


def satisfies(value: object, bound: object) -> bool:
    """Whether a value keeps a bound of its type; other annotations than bounds restrict nothing."""
    return type(bound) not in _CHECKS or _CHECKS[type(bound)](value, bound)


def _may_be_file(text: str) -> bool:
    if text.strip() in ("", "-"):
        return False
    try:
        path = Path(text).expanduser()
        return path.is_file() or not path.exists()
    except (OSError, RuntimeError):  # RuntimeError: the home folder of an unknown user
        return False


_CHECKS: dict[type, Callable[..., bool]] = {
    Ge: lambda value, bound: value >= bound.ge,
    Gt: lambda value, bound: value > bound.gt,
    Le: lambda value, bound: value <= bound.le,
    Lt: lambda value, bound: value < bound.lt,
    MinLen: lambda value, bound: len(value) >= bound.min_length,
    MaxLen: lambda value, bound: len(value) <= bound.max_length,
    Predicate: lambda value, bound: bound.func(value),
    IsFile: lambda value, bound: _may_be_file(value),
}
