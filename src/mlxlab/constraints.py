"""Types with bounds, for the signatures that are the schema of the configuration.

`config` reads these names from the *source* of a signature, so nothing heavy is imported to check a value. The bounds
are those of `annotated_types`: greater than (`Gt`), at least (`Ge`), less than (`Lt`), at most (`Le`), and a number of
items (`MinLen`, `MaxLen`).
"""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge as Ge
from annotated_types import Gt as Gt
from annotated_types import Le as Le
from annotated_types import Lt as Lt
from annotated_types import MaxLen as MaxLen
from annotated_types import MinLen as MinLen


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
