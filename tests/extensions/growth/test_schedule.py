"""A growth schedule: its check like the rest of a config, and the progress of a checkpoint."""

import pytest

from mlxlab.checkpoint.state import GrowthProgress
from mlxlab.config.check import conflicts
from mlxlab.config.schema.validate import Checker
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


GOOD = {"id": "deeper", "op": "stack", "map": [0, 0], "when": {"or_steps": 3}}


def issues(*operations):
    node = {"operations": list(operations)}
    target, key = "mlxlab.extensions.growth.callback.GrowthSchedule", "callbacks.growth"
    schema = Checker(node).check_node(node, target, key)
    found = list(schema) or list(conflicts({"callbacks": {"growth": node}}))
    return {issue.path.removeprefix(f"{key}.operations."): issue.message for issue in found}


def without(key):
    return {name: value for name, value in GOOD.items() if name != key}


@pytest.mark.parametrize(
    ("operation", "path", "message"),
    [
        ({**GOOD, "op": "stak"}, "0.op", "expected stack, got stak"),
        (without("op"), "0.op", "missing; expected stack"),
        (without("id"), "0.id", "missing; expected its name, unique in the schedule"),
        (without("when"), "0.when", "missing"),
        ({**GOOD, "map": 2}, "0.map", "expected a list of length >= 1"),
        ({**GOOD, "map": [-1]}, "0.map.0", "expected a whole number >= 0, got -1"),
        ({**GOOD, "when": {"or_step": 3}}, "0.when.or_step", "unknown key; did you mean callbacks"),
        ({**GOOD, "when": {"or_steps": 0}}, "0.when.or_steps", "expected a whole number >= 1"),
        ({**GOOD, "when": {}}, "0.when", "expected metric_below, metric_above or or_steps"),
        ({**GOOD, "then": "evaluat"}, "0.then", "got evaluat"),
        ({**GOOD, "layers": 3}, "0.layers", "unknown key"),
        (without("map") | {"op": "set_accumulation", "accumulate": 2}, "0.op", "trainer=optimized"),
    ],
)
def test_a_wrong_operation_is_named(operation, path, message):
    found = issues(operation)
    assert list(found) == [path]
    assert message in found[path]


def test_ids_differ():
    assert issues(GOOD, {**GOOD, "id": "other"}) == {}
    [path] = issues(GOOD, GOOD)
    assert path == "callbacks.growth.operations"
