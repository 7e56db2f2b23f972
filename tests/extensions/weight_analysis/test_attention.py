"""Entropy of attention weights against weights computed in NumPy."""

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.extensions.weight_analysis.attention import attention_entropy
from mlxlab.models.build import build_model
from mlxlab.models.layers import attention_bias
from support.growth import TARGETS
from support.models import weights_of

SIZES = {
    "hidden_size": 16,
    "num_layers": 2,
    "num_heads": 4,
    "intermediate_size": 32,
    "dropout": 0.5,
}
LIMITED = {"max_position_embeddings": 80, **SIZES}
NODES = {
    "transformer": {"_target_": TARGETS["transformer"], "num_kv_heads": 2, **SIZES},
    "bert": {"_target_": TARGETS["bert"], **LIMITED},
    "cnn_hybrid": {"_target_": TARGETS["hybrid"], **LIMITED},
}
TOKENS = np.random.default_rng(0).integers(0, 30, (3, 10))
SEGMENTS = np.array([[1] * 10, [1] * 4 + [2] * 6, [1] * 7 + [0] * 3])


def build(name: str):
    return build_model(NODES[name], kind="classification", vocab_size=30, num_classes=2, seed=0)


@pytest.mark.parametrize("name", NODES)
@pytest.mark.parametrize("boolean", [False, True])
def test_entropies_are_those_of_the_weights(name, boolean):
    model, tokens = build(name), mx.array(TOKENS)
    segments = mx.array(SEGMENTS > 0) if boolean else mx.array(SEGMENTS)
    encoder = model.backbone.encoder if name == "cnn_hybrid" else model.backbone
    before, was_training = weights_of(model), model.training
    entropies = attention_entropy(model, tokens, segments)
    assert np.shape(entropies) == (2, 4)
    assert model.training == was_training
    assert weights_of(model).keys() == before.keys()
    model.eval()
    inputs = []

    class Spy(type(encoder.layers[0].attention)):
        def __call__(self, x, *args):
            inputs.append(x)
            return super().__call__(x, *args)

    for layer in encoder.layers:
        layer.attention.__class__ = Spy
    model(tokens, segments)
    mask = attention_bias(mx.array(SEGMENTS), name == "transformer", mx.float32, None)
    for layer, x, measured in zip(encoder.layers, inputs, entropies, strict=True):
        q, k, _ = layer.attention.project(x)
        k = mx.repeat(k, 4 // k.shape[1], axis=1)
        bias = mask
        if boolean:  # Each row is one document.
            within = mx.array((SEGMENTS > 0).astype(np.int32))
            bias = attention_bias(within, name == "transformer", mx.float32, None)
        weights = np.array(mx.softmax(q @ k.swapaxes(-1, -2) / 2 + bias, axis=-1), np.float64)
        entropy = -(weights * np.log(np.maximum(weights, 1e-300))).sum(axis=-1)  # (B, H, T)
        real = np.broadcast_to((SEGMENTS > 0)[:, None], entropy.shape)
        expected = (entropy * real).sum(axis=(0, 2)) / (SEGMENTS > 0).sum()
        np.testing.assert_allclose(measured, expected, rtol=1e-4)
