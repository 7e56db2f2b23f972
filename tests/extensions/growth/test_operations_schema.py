"""The operations of a growth schedule are checked like the rest of a config, before anything heavy is imported."""

import pytest

from mlxlab.config.schema.conflicts import conflicts
from mlxlab.config.schema.validate import Validator

TEXT = {"_target_": "mlxlab.data.text.dataset.StreamingTextDataset"}
GOOD = {"id": "deeper", "op": "stack", "map": [0, 0], "when": {"or_steps": 3}}


def issues(*operations):
    node = {"operations": list(operations), "on_error": "raise"}
    schema = Validator().node(
        node, "mlxlab.extensions.growth.callback.GrowthSchedule", "callbacks.growth"
    )
    found = list(schema) or list(conflicts({"callbacks": {"growth": node}}))
    return {
        issue.path.removeprefix("callbacks.growth.operations."): issue.message for issue in found
    }


def without(key):
    return {name: value for name, value in GOOD.items() if name != key}


@pytest.mark.parametrize(
    ("operation", "path", "message"),
    [
        ({**GOOD, "op": "stak"}, "0.op", "expected one of stack, "),
        (without("op"), "0.op", "missing; expected one of stack, widen"),
        (without("id"), "0.id", "missing; expected text"),
        (without("when"), "0.when", "missing"),
        ({**GOOD, "map": 2}, "0.map", "expected a list with at least 1 item"),
        ({**GOOD, "map": [-1]}, "0.map.0", "expected a whole number >= 0, got -1"),
        (
            {**GOOD, "when": {"or_step": 3}},
            "0.when.or_step",
            "unknown key; did you mean callbacks.growth.",
        ),
        (
            {**GOOD, "when": {"or_steps": 0}},
            "0.when.or_steps",
            "expected a whole number >= 1, got 0",
        ),
        ({**GOOD, "when": {}}, "0.when", "expected metric_below, metric_above or or_steps"),
        ({**GOOD, "then": "evaluat"}, "0.then", "got evaluat"),
        ({**GOOD, "layers": 3}, "0.layers", "unknown key"),
        (
            {"id": "a", "op": "set_evaluation", "when": {"or_steps": 1}},
            "0.op",
            "needs eval_every or eval_batches",
        ),
        (
            {"id": "a", "op": "set_accumulation", "accumulate": 2, "when": {"or_steps": 1}},
            "0.op",
            "trainer=optimized",
        ),
    ],
)
def test_a_wrong_operation_is_named(operation, path, message):
    found = issues(operation)
    assert list(found) == [path]
    assert message in found[path]


def test_ids_differ():
    assert issues(GOOD, {**GOOD, "id": "other"}) == {}
    assert issues(GOOD, GOOD) == {"1.id": "deeper is the id of an operation before"}


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        ({"teachers": ["a"]}, "keep the vocabulary before it"),
        ({"distillation": {"rounds": 2}}, "teachers of later rounds"),
    ],
)
def test_the_teachers_of_a_language_model_keep_its_vocabulary(trainer, message):
    operation = {"id": "all", "op": "resize_vocabulary", "size": 9, "when": {"or_steps": 1}}
    tree = {"callbacks": {"growth": {"operations": [operation]}}, "trainer": trainer}
    path = "callbacks.growth.operations.0.op"
    messages = {issue.path: issue.message for issue in conflicts(tree | {"data": TEXT})}
    assert message in messages[path]
    assert path not in {issue.path for issue in conflicts(tree)}


def test_a_model_of_mlx_lm_keeps_its_sizes_and_tokens():
    model = {"_target_": "mlxlab.models.zoo.mlx_lm.MlxLm", "pretrained": "folder"}
    freeze = {"id": "a", "op": "freeze", "patterns": ["embedding"], "when": {"or_steps": 1}}
    growth = {"operations": [freeze, GOOD]}
    tree = {"model": model, "callbacks": {"growth": growth}}
    messages = {issue.path: issue.message for issue in conflicts(tree)}
    assert messages == {
        "callbacks.growth.operations.1.op": "stack cannot change a model of model=mlx_lm; expected freeze, unfreeze, "
        "set_lora, merge_lora, an operation on settings",
    }
