"""A schedule and the progress of a checkpoint."""

import pytest

from mlxlab.checkpoint.state import GrowthProgress
from mlxlab.errors import DataError
from mlxlab.growth.schedule import check_progress, describe_remaining


def test_operations_without_hashes_are_refused():
    with pytest.raises(DataError, match="expected as many hashes as operations that are done, got 1 operations"):
        check_progress([], GrowthProgress(done=["deeper"], hashes=[]))


def test_an_operation_that_was_skipped_is_done():
    with pytest.raises(DataError, match="expected skipped operations that are done, got deeper"):
        check_progress([], GrowthProgress(skipped=["deeper"]))


def test_what_is_left_and_what_it_waits_for():
    deeper = {"id": "deeper", "op": "stack", "map": [0, 0], "when": {"metric_below": 4.0, "or_steps": 20}}
    slower = {"id": "slower", "op": "set_learning_rate", "learning_rate": 1e-4, "when": {"metric_above": 3.0}}
    one, two = ({"done": ids, "hashes": ids, "step": 7} for ids in (["deeper"], ["deeper", "slower"]))
    assert describe_remaining([deeper, slower], GrowthProgress(step=5)) == (
        "deeper (stack) waits for objective < 4 or step 25, then slower"
    )
    assert describe_remaining([deeper, slower], GrowthProgress(**one)) == (
        "slower (set_learning_rate) waits for objective > 3"
    )
    assert describe_remaining([deeper, slower], GrowthProgress(**two)) == ""
