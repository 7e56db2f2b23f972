"""A schedule and the progress of a checkpoint."""

import pytest

from mlxlab.checkpoint.state import GrowthProgress
from mlxlab.errors import ConfigError, DataError
from mlxlab.extensions.growth.schedule import check_progress, is_due, record_done, waits_for


def test_progress_that_does_not_fit_together_is_refused():
    progress = GrowthProgress(done=["deeper"], hashes=[])
    with pytest.raises(DataError, match="expected a hash for each operation that is done"):
        check_progress([], progress)


def test_what_is_done_cannot_change_but_later_ones_can():
    done, later = {"id": "a", "map": [0]}, {"id": "c"}
    progress = GrowthProgress()
    record_done([done, later], progress, 3)
    check_progress([done, {**later, "map": [1]}], progress)
    for operations in ([{**done, "map": [1]}, later], [later], []):
        with pytest.raises(ConfigError, match=r"operations\.0: a is done and cannot change"):
            check_progress(operations, progress)


def test_an_operation_waits_for_a_metric_or_for_steps():
    when = {"metric_below": 4.0, "or_steps": 20}
    assert waits_for(when) == "objective < 4 or after 20 steps"
    due = [is_due(when, metric, steps) for metric in (None, 3.9, 4.0) for steps in (19, 20)]
    assert due == [False, True, True, True, False, True]
    assert waits_for({"metric_above": 3.0}) == "objective > 3"
    above = [is_due({"metric_above": 3.0}, metric, 99) for metric in (None, 3.0, 3.1)]
    assert above == [False, False, True]
