"""Types with bounds for signatures, from whose *source* `config` reads these names as the schema of a config."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen  # noqa: F401


@dataclass(frozen=True)
class IsFile:
    """Text that names a file, not a folder, device, pipe or `-`. Whether it exists is checked on reading."""


Count = Annotated[int, Ge(0), Le(10**12)]  # 0, 1, 2, ...
Size = Annotated[int, Ge(1), Le(10**12)]  # 1, 2, 3, ...
Fraction = Annotated[float, Ge(0), Le(1)]  # [0, 1]
Share = Annotated[float, Ge(0), Lt(1)]  # [0, 1): a dropout rate, a validation fraction
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Seed = Annotated[int, Ge(0), Lt(2**64)]
FilePath = Annotated[str, IsFile()]
