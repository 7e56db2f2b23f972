"""Adapters that a schedule adds to quantised weights."""

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.errors import ConfigError
from mlxlab.growth.operations.changes import CHANGES
from mlxlab.models.adapters.freeze import trainable_names
from mlxlab.models.build import Architecture
from mlxlab.models.layers import named_parameters
from support.growth import SIZES, TARGETS, apply, batch, new_model

TASK = {"kind": "language_modelling", "num_classes": 23}
QUANTIZATION = {"_target_": "mlxlab.models.options.Quantization", "group_size": 32}
ADD = {"id": "low", "op": "set_lora", "rank": 3, "when": {}}


def quantised(**quantization):
    sizes = {
        **SIZES,
        "hidden_size": 32,
        "quantization": QUANTIZATION | quantization,
        "freeze": ["layers", "embedding", "head"],
    }
    return Architecture({"_target_": TARGETS["transformer"], **sizes, "tie_embeddings": False}, 23)


@pytest.mark.parametrize("quantization", [{"bits": 4}, {"bits": 3}, {"bits": 8, "mode": "mxfp8"}])
def test_quantised_weights_get_adapters_which_are_trained(quantization):
    architecture = quantised(**quantization)
    model, inputs = new_model(architecture, TASK, 0), batch(np.random.default_rng(0))
    # The feed-forward layers, of width 12, are quantised in part: a group does not divide the width of `down`.
    adapted, after = apply(model, ADD, architecture, TASK)
    assert mx.array_equal(adapted(*inputs), model(*inputs))
    trained = trainable_names(adapted)
    assert {"query.lora_a", "down.lora_b"} <= {".".join(name.split(".")[-2:]) for name in trained}
    assert not any("base" in name for name in trained)
    again = ADD | {"rank": 2}
    with pytest.raises(ConfigError, match="a quantised weight cannot take up its adapter"):
        CHANGES["set_lora"].arrays(again, after, named_parameters(adapted), 0)
