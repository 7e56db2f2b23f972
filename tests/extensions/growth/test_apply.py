"""A schedule that is tried without training: the model after each operation, or why one cannot work."""

import pytest

from mlxlab.checkpoint.state import GrowthProgress
from mlxlab.errors import ConfigError
from mlxlab.extensions.growth.apply import preview, preview_table
from mlxlab.models.build import Architecture, build_model
from mlxlab.models.layers import named_parameters
from mlxlab.models.model import count_parameters
from support.growth import SIZES, TARGETS, new_model
from support.models import RandomBatches, ResizableBatches, make_trainer

NODE = {"_target_": TARGETS["transformer"], **SIZES, "norm_type": "rms"}
STEPS = {"when": {"or_steps": 5}}
DEEPER = {"id": "deeper", "op": "stack", "map": [0, 0, 1, 1], "when": {"metric_below": 4}}
WIDER = {"id": "wider", "op": "widen", "feed_forward": 20, **STEPS}
LORA = {"id": "lora", "op": "set_lora", "rank": 2, **STEPS}
CLASSES = {"kind": "classification", "num_classes": 2}


def new_state(**options):
    """The state of a run of a transformer of 2 layers, before its first step."""

    def build(architecture):
        return build_model(architecture.node, vocab_size=architecture.vocab_size, **CLASSES)

    architecture = Architecture({**NODE, **options}, 23)
    state = make_trainer().init_state(build(architecture), RandomBatches())
    state.architecture, state.new_model = architecture, build
    return state


def rows_of(operations, state, progress=None, step=0):
    progress = progress or GrowthProgress()
    left = operations[len(progress.done) :]
    lines = preview_table(operations, progress, preview(left, state), step).splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_each_operation_that_is_not_done_has_a_row():
    rate = {"id": "rate", "op": "set_learning_rate", "learning_rate": 0.1, **STEPS}
    rows = rows_of([DEEPER, rate, WIDER], new_state())
    final = Architecture(NODE | {"num_layers": 4, "intermediate_size": 20}, 23)
    assert [row[1] for row in rows] == ["", "deeper", "rate", "wider"]
    assert rows[1][3] == "objective < 4"
    assert rows[2][4] == rows[1][4]
    assert rows[3][4] == f"{count_parameters(new_model(final, CLASSES)):,}"
    progress = GrowthProgress(done=["deeper"], hashes=["a"], step=6)
    rows = rows_of([DEEPER, WIDER], new_state(num_layers=4), progress, step=9)
    assert [row[:2] for row in rows] == [["1", ""], ["2", "wider"]]


def operation(op, **options):
    return {"id": "it", "op": op, **options, **STEPS}


QUANTISED = {
    "hidden_size": 32,
    "quantization": {"_target_": "mlxlab.models.options.Quantization", "bits": 4, "group_size": 32},
    "adapter": {"_target_": "mlxlab.models.options.LoRA", "rank": 2},
}
DORA = {"adapter": {"_target_": "mlxlab.models.options.LoRA", "rank": 2, "dora": True}}
WIDEN, HEADS = operation("widen", feed_forward=20), operation("add_heads", heads=4)
MERGE = operation("merge_lora")
REFUSED = [  # options of the model, operations, and why the last one cannot work
    ({}, [operation("stack", map=[0, 1, 5])], "map: expected layers below 2, got 5"),
    ({}, [operation("freeze", patterns=["*"])], "patterns: nothing is left to train"),
    ({}, [operation("set_lora", rank=2, targets=["atention"])], "targets: atention matches"),
    ({}, [LORA, HEADS], "add_heads: expected .* without an adapter; merge_lora removes"),
    ({}, [LORA, operation("grow_width", hidden_size=20)], "grow_width: .* without an adapter"),
    (QUANTISED, [WIDEN], "widen: .* not quantised"),
    (QUANTISED, [HEADS], "add_heads: expected .* not quantised$"),
    (DORA, [WIDEN], "widen: expected .* without an adapter; merge_lora removes"),
    ({}, [LORA, {**MERGE, "id": "first"}, MERGE], ".*expected a model with adapters"),
    ({}, [operation("set_batch_size", batch_size=8)], ".* cannot change their size"),
    ({}, [operation("set_curriculum", alpha=0.5)], ".*expected data/order=curriculum"),
]


@pytest.mark.parametrize(("options", "operations", "message"), REFUSED)
def test_an_operation_that_cannot_work_is_named(options, operations, message):
    with pytest.raises(ConfigError, match=f"^callbacks.growth.operations: it: {message}"):
        preview(operations, new_state(**options))


def test_nothing_is_changed():
    state = new_state()
    state.data = data = ResizableBatches()
    before = data.state_dict(), data.batch_size, state.architecture, named_parameters(state.model)
    operations = [DEEPER, operation("set_batch_size", batch_size=8), WIDER]
    assert len(preview(operations, state)) == 4
    assert (data.state_dict(), data.batch_size, state.architecture) == before[:3]
    assert all(array is before[3][path] for path, array in named_parameters(state.model).items())
