"""Plans: from one architecture to another by operations, and the optimizer state over all of them."""

import numpy as np
import pytest

from mlxlab.errors import ConfigError
from mlxlab.growth.plan import apply_plan, plan_growth
from mlxlab.models.build import Architecture
from mlxlab.models.layers import named_parameters
from support.growth import SIZES, TARGETS, batch, new_model, randomize

OLD = Architecture({"_target_": TARGETS["transformer"], **SIZES, "head_dim": None, "freeze": []}, 23)
TASK = {"kind": "language_modelling", "num_classes": 23}


def test_a_plan_leads_to_the_architecture_and_preserves_the_outputs():
    new = Architecture(OLD.node | {"num_layers": 3, "intermediate_size": 20, "num_heads": 4, "head_dim": 8}, 30)
    plan = plan_growth(OLD, new)
    assert [operation["op"] for operation in plan.operations] == ["stack", "widen", "add_heads", "resize_vocabulary"]
    assert plan.architecture == new
    model = new_model(OLD, TASK, 0)
    randomize(model, 0)
    inputs = batch(np.random.default_rng(0))
    before = np.array(model(*inputs))
    arrays, sources = apply_plan(plan, OLD, named_parameters(model), 0)
    grown = new_model(plan.architecture, TASK)
    grown.load_weights(list(arrays.items()))
    np.testing.assert_allclose(np.array(grown(*inputs))[..., :23], before, atol=1e-5)
    assert len(sources[f"backbone.layers.2.{'feed_forward.up.weight'}"].gathers) == 1
    assert sources["backbone.layers.2.feed_forward.up.weight"].path == "backbone.layers.1.feed_forward.up.weight"
    copy = next(layer for layer in (1, 2) if f"backbone.layers.{layer}.feed_forward.down.weight" not in sources)
    assert copy == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_layers": 1}, "drops or reorders"),
        ({"intermediate_size": 8}, "expected more than 12"),
        ({"num_heads": 4, "head_dim": 4}, "model.head_dim=4: no operation leads there"),
        ({"hidden_size": 8}, "expected more than 16"),
    ],
)
def test_what_no_operation_reaches_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        plan_growth(OLD, Architecture(OLD.node | changes, 23))
