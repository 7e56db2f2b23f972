"""Growth of decoders with options: exact, or refused."""

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.errors import ConfigError
from mlxlab.growth.operations.changes import CHANGES
from mlxlab.models.build import Architecture
from mlxlab.models.layers import named_parameters
from support.growth import SIZES, TARGETS, new_model

TASK = {"kind": "classification", "num_classes": 2}
OPERATIONS = {
    "widen": {"feed_forward": 2 * SIZES["intermediate_size"]},
    "add_heads": {"heads": 2 * SIZES["num_heads"]},
    "grow_width": {"hidden_size": 2 * SIZES["hidden_size"]},
    "stack": {"map": [0, 0, 1]},
    "resize_vocabulary": {"size": 30},
}
NORMALIZED = {"qk_norm": True, "attention_bias": "all"}


def grow(name, **options):
    """A model with random weights, and the one that the operation makes of it."""
    before = Architecture({"_target_": TARGETS["transformer"], **SIZES, "dropout": 0.0, **options}, 23)
    operation = {"id": "more", "op": name, "when": {}, **OPERATIONS[name]}
    old, after = new_model(before, TASK), CHANGES[name].node(operation, before)
    mx.random.seed(0)
    weights = {path: leaf + 0.2 * mx.random.normal(leaf.shape) for path, leaf in named_parameters(old).items()}
    old.load_weights(list(weights.items()))
    new = new_model(after, TASK)
    new.load_weights(list(CHANGES[name].arrays(operation, before, weights, 0)[0].items()))
    return old.eval(), new.eval()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("widen", NORMALIZED),
        ("add_heads", NORMALIZED),
        ("stack", NORMALIZED),
        ("grow_width", {"attention_bias": "all"}),
        ("grow_width", {"classifier_bias": False}),
        ("resize_vocabulary", {"classifier_bias": False}),
    ],
)
def test_the_outputs_stay(name, options):
    old, new = grow(name, **options)
    tokens = mx.array([[5, 9, 2, 7]])
    before, after = (np.array(model(tokens, mx.ones((1, 4), mx.int32))) for model in (old, new))
    np.testing.assert_allclose(before, after, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "key"), [("grow_width", NORMALIZED, "qk_norm"), ("stack", {"no_rope_layers": [1]}, "no_rope")]
)
def test_what_would_change_them_is_refused(name, options, key):
    with pytest.raises(ConfigError, match=key):
        grow(name, **options)
