"""Growth of models with the options of published families: exact, or refused."""

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.errors import ConfigError
from mlxlab.extensions.growth.grow import CHANGES
from mlxlab.models.build import Architecture
from mlxlab.models.layers import named_parameters
from support.growth import SIZES, TARGETS, new_case, new_model

TASK = {"kind": "classification", "num_classes": 2}
OPERATIONS = {
    "widen": {"feed_forward": 2 * SIZES["intermediate_size"]},
    "add_heads": {"heads": 2 * SIZES["num_heads"]},
    "grow_width": {"hidden_size": 2 * SIZES["hidden_size"]},
    "stack": {"map": [0, 0, 1]},
    "resize_vocabulary": {"size": 30},
}
NORMALIZED = {"qk_norm": True, "attention_bias": "all"}
SCALED = {
    "rope_scaling": {
        "_target_": "mlxlab.models.rope.Llama3Scaling",
        "original_max_position_embeddings": 4,
    }
}
UNBIASED = {
    "position_embedding": "rope",
    "mlp_type": "geglu",
    "pre_norm": True,
    "num_token_types": 0,
    "bias": False,
}
LOCAL = {"global_attention_every": 2, "attention_window": 1, "local_rope_theta": 100.0}
FIRST = {"first_attention_norm": False}


def grow(name, family, **options):
    """A model with random weights, and the one that the operation makes of it."""
    before = Architecture({"_target_": TARGETS[family], **SIZES, "dropout": 0.0, **options}, 23)
    operation = {"id": "more", "op": name, "when": {}, **OPERATIONS[name]}
    old, after = new_model(before, TASK), CHANGES[name].node(operation, before)
    mx.random.seed(0)
    weights = {
        path: leaf + 0.2 * mx.random.normal(leaf.shape)
        for path, leaf in named_parameters(old).items()
    }
    old.load_weights(list(weights.items()))
    new = new_model(after, TASK)
    new.load_weights(list(CHANGES[name].arrays(operation, before, weights, 0)[0].items()))
    return old.eval(), new.eval()


@pytest.mark.parametrize(
    ("name", "family", "options"),
    [
        ("widen", "transformer", NORMALIZED),
        ("widen", "transformer", SCALED),
        ("widen", "bert", {**UNBIASED, **LOCAL, **FIRST}),
        ("add_heads", "transformer", NORMALIZED),
        ("add_heads", "transformer", SCALED),
        ("add_heads", "bert", {**UNBIASED, **LOCAL, **FIRST, "pooling": "mean"}),
        ("stack", "transformer", NORMALIZED | SCALED),
        ("stack", "bert", UNBIASED),
        ("stack", "bert", {"num_token_types": 1, "pooling": "first"}),
        ("grow_width", "transformer", {"classifier_bias": False}),
        ("resize_vocabulary", "transformer", {"classifier_bias": False}),
        ("grow_width", "transformer", {"attention_bias": "all", **SCALED}),
    ],
)
def test_the_outputs_stay(name, family, options):
    old, new = grow(name, family, **options)
    tokens = mx.array([[5, 9, 2, 7]])
    before, after = (np.array(model(tokens, mx.ones((1, 4), mx.int32))) for model in (old, new))
    np.testing.assert_allclose(before, after, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "family", "options", "key"),
    [
        ("grow_width", "transformer", NORMALIZED, "qk_norm"),
        ("grow_width", "bert", UNBIASED, "LayerNorm"),
        ("stack", "bert", {**UNBIASED, **LOCAL}, "global_attention_every=1, got 2"),
        ("stack", "bert", {**UNBIASED, **FIRST}, "first_attention_norm=True, got False"),
    ],
)
def test_what_would_change_them_is_refused(name, family, options, key):
    with pytest.raises(ConfigError, match=key):
        grow(name, family, **options)


QUANTIZATION = {"_target_": "mlxlab.models.options.Quantization", "group_size": 32}
ADD = {"id": "low", "op": "set_lora", "rank": 3, "when": {}}


@pytest.mark.parametrize("quantization", [{"bits": 4}, {"bits": 3}, {"bits": 8, "mode": "mxfp8"}])
def test_quantised_weights_get_adapters_which_are_trained(quantization):
    # The feed-forward layers, of width 12, are quantised in part: a group does not divide the width of `down`.
    node = {"_target_": TARGETS["transformer"], **SIZES, "hidden_size": 32, "tie_embeddings": False}
    frozen = {
        "freeze": ["layers", "embedding", "head"],
        "quantization": QUANTIZATION | quantization,
    }
    case = new_case(node | frozen, "language_modelling")
    adapted, _ = case.grow(ADD)
    np.testing.assert_array_equal(adapted.outputs(evaluated=True), case.outputs(evaluated=True))
    trained = adapted.trained()
    assert {"query.lora_a", "down.lora_b"} <= {".".join(name.split(".")[-2:]) for name in trained}
    assert not any("base" in name for name in trained)
    with pytest.raises(ConfigError, match="a quantised weight cannot take up its adapter"):
        adapted.grow(ADD | {"rank": 2})
