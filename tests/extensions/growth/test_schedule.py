"""A schedule and the progress of a checkpoint."""

import pytest

from mlxlab.checkpoint.state import GrowthProgress
from mlxlab.errors import ConfigError, DataError
from mlxlab.extensions.growth.schedule import (
    check_progress,
    describe_remaining,
    due_steps,
    find_late,
)


def test_operations_without_hashes_are_refused():
    with pytest.raises(
        DataError, match="expected as many hashes as operations that are done, got 1 operations"
    ):
        check_progress([], GrowthProgress(done=["deeper"], hashes=[]))


def test_an_operation_that_was_skipped_is_done():
    with pytest.raises(DataError, match="expected skipped operations that are done, got deeper"):
        check_progress([], GrowthProgress(skipped=["deeper"]))


@pytest.mark.parametrize(
    ("operations", "saved", "message"),
    [
        (
            [{"id": "a", "map": [0]}],
            [{"id": "a", "map": [1]}],
            r"map: expected \[1\], got \[0\]; change only",
        ),
        ([{"id": "a", "map": [0]}], [{"id": "a"}], r"map: expected none, got \[0\]"),
        ([{"id": "b"}], [{"id": "a"}], "id: expected a, got b"),
        ([{"id": "b"}], "?", "got b with other values"),
        ([], [{"id": "a"}], "expected it in the schedule, got none"),
    ],
)
def test_the_value_that_differs_in_what_is_done_is_named(operations, saved, message):
    with pytest.raises(
        ConfigError, match=r"operations\.0: a is done and cannot change: " + message
    ):
        check_progress(operations, GrowthProgress(done=["a"], hashes=["0"]), saved)


def test_no_step_is_known_after_an_operation_that_waits_for_a_metric():
    steps, metric = (
        {"when": {"or_steps": 5}, "op": "widen"},
        {"when": {"or_steps": 5, "metric_below": 1}, "op": "widen"},
    )
    operations = [steps, steps, metric, steps]
    due = due_steps(operations, 2, 9)
    assert due == [(10, True), (15, True), (15, False), (20, False)]
    late = "not due before the run ends at step 14"
    assert find_late(operations, due, 14) == ["", late, late, late]
    assert find_late([{**steps, "op": "set_batch_size"}, steps], due[:2], 9) == [
        "not due before the run ends at step 9",
        "",
    ]


def test_what_is_left_and_what_it_waits_for():
    deeper = {
        "id": "deeper",
        "op": "stack",
        "map": [0, 0],
        "when": {"metric_below": 4.0, "or_steps": 20},
    }
    slower = {
        "id": "slower",
        "op": "set_learning_rate",
        "learning_rate": 1e-4,
        "when": {"metric_above": 3.0},
    }
    one, two = (
        {"done": ids, "hashes": ids, "step": 7} for ids in (["deeper"], ["deeper", "slower"])
    )
    assert describe_remaining([deeper, slower], GrowthProgress(step=5)) == (
        "deeper (stack) waits for objective < 4 or step 25, then slower"
    )
    assert describe_remaining([deeper, slower], GrowthProgress(**one)) == (
        "slower (set_learning_rate) waits for objective > 3"
    )
    assert describe_remaining([deeper, slower], GrowthProgress(**two)) == ""
