"""Which rows of a global batch a process takes: row r goes to process r modulo their number.

Every process reads the same stream and cuts the same global batches, so their order does not depend on how many there
are, and a run may go on with another number of processes.
"""

from dataclasses import dataclass

import numpy as np

from mlxlab.errors import ConfigFault


@dataclass(frozen=True)
class Deal:
    """Process `rank` of `world`."""

    rank: int = 0
    world: int = 1

    def mine(self, rows: np.ndarray) -> np.ndarray:
        """The rows (R, ...) of this process, in their order."""
        return rows[self.rank :: self.world]

    def check(self, batch_size: int) -> None:
        """Raises ConfigFault if a process would have no row at all."""
        if batch_size < self.world:
            raise ConfigFault(f"data.batch_size={batch_size}: fewer rows than the {self.world} processes")
