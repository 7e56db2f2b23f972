"""Adapters that a schedule adds to quantised weights."""

import numpy as np
import pytest

from mlxlab.errors import ConfigError
from support.growth import SIZES, TARGETS, new_case

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
