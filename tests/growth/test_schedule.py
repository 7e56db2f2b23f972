"""A schedule and the progress of a checkpoint."""

import pytest

from mlxlab.checkpoint.state import GrowthProgress
from mlxlab.errors import DataError
from mlxlab.growth.schedule import check_progress


def test_operations_without_hashes_are_refused():
    with pytest.raises(DataError, match="expected as many hashes as operations that are done, got 1 operations"):
        check_progress([], GrowthProgress(done=["deeper"], hashes=[]))
