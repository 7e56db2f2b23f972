"""The operations of a growth schedule are checked like the rest of a config, before anything heavy is imported."""

import pytest

from mlxlab.config.check import conflicts
from mlxlab.config.schema.validate import Checker

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
