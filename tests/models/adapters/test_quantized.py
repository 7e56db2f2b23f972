"""Quantised layers compute what their weights stand for; adapters on them train as on those weights."""

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten, tree_unflatten

from mlxlab.errors import ConfigError
from mlxlab.models.adapters.apply import refuse_training
from mlxlab.models.adapters.freeze import train_only, trainable_names
from mlxlab.models.adapters.quantized import QuantizedLayer, float_weight
from mlxlab.models.build import build_model
from mlxlab.models.model import count_parameters, training_flops
from mlxlab.models.options import split_node

ADAPTER = {"_target_": "mlxlab.models.options.LoRA", "rank": 2}
FOUR_BITS = {"_target_": "mlxlab.models.options.Quantization", "bits": 4, "group_size": 32}
BACKBONES = {
    "bert.Bert": {},
    "transformer.Transformer": {},
    "cnn_hybrid.CnnHybrid": {"num_filters": 4},
}
KINDS = [
    (name, "classification" if name == "bert.Bert" else "language_modelling") for name in BACKBONES
]
SIZES = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "intermediate_size": 48}
SIZES |= {"dropout": 0.0}
TOKENS = mx.array(np.random.default_rng(0).integers(0, 40, (3, 7)).astype(np.int32))


def build(
    name="transformer.Transformer", kind="language_modelling", quantization=None, seed=0, **keys
):
    node = {"_target_": f"mlxlab.models.{name}", **SIZES, **BACKBONES[name], **keys}
    if quantization is not None:
        node["quantization"] = FOUR_BITS | quantization
    return build_model(node, kind=kind, num_classes=2, vocab_size=40, seed=seed).eval()


def logits(model):
    return np.array(model(TOKENS, mx.ones(TOKENS.shape, dtype=mx.int32)))


def quantised(model):
    return [path for path, layer in model.named_modules() if isinstance(layer, QuantizedLayer)]


def with_float_weights(model):
    """The same model with float layers of the weights that the quantised ones stand for."""
    new = {}
    for path, layer in model.named_modules():
        if isinstance(layer, QuantizedLayer):
            weight = float_weight(layer)
            new[path] = nn.Linear(1, 1, bias="bias" in layer)
            if hasattr(layer, "as_linear"):
                new[path] = nn.Embedding(1, 1)
            new[path].weight = weight
            if "bias" in layer:
                new[path].bias = layer.bias
            new[path].freeze()
    model.update_modules(tree_unflatten(list(new.items())))
    return model


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_logits_are_those_of_the_weights_that_the_codes_stand_for(name, kind):
    model, plain = build(name, kind, {}), build(name, kind)
    before = logits(model)
    assert len(quantised(model)) >= 11
    assert not any(path.startswith("head.out") for path in quantised(model))
    assert count_parameters(model) == count_parameters(plain)
    train_only(plain, trainable_names(model))
    assert training_flops(model, 8) == training_flops(plain, 8)
    assert np.abs(before - logits(plain)).max() > 0.001, "4 bits change the logits"
    np.testing.assert_allclose(before, logits(with_float_weights(model)), atol=2e-5)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"mode": "mxfp4", "group_size": 64}, "model.quantization: mxfp4 .* group size 32"),
        ({"group_size": 16}, "model.quantization: The requested group size 16 is not supported"),
        ({"skip": ["layers.7"]}, "model.quantization.skip: layers.7 matches nothing"),
    ],
)
def test_a_format_that_mlx_lacks_and_a_pattern_without_matches_are_refused(keys, message):
    with pytest.raises(ConfigError, match=message):
        build(quantization=keys)


@pytest.mark.parametrize(("name", "dora"), [(name, name == "bert.Bert") for name in BACKBONES])
def test_adapters_change_nothing_at_first_and_get_the_gradients_of_float_weights(name, dora):
    adapter = ADAPTER | {
        "dora": dora,
        "targets": ["*"],
        "train": ["attention_norm", "layers.0.attention.key"],
    }
    model = build(name, quantization={}, adapter=adapter)
    plain = build(name, quantization={"skip": ["layers.0.attention.key"]})
    assert not [path for path in quantised(model) if "layers.0.attention.key" in path]
    if name != "cnn_hybrid.CnnHybrid":
        np.testing.assert_allclose(logits(model), logits(plain), atol=1e-5)
    move(model)
    actual, reference = gradients(model), gradients(with_float_weights(model))
    assert actual.keys() == reference.keys() == set(trainable_names(model))
    for path, gradient in actual.items():
        np.testing.assert_allclose(
            gradient, reference[path], atol=1e-5 * float(mx.abs(reference[path]).max()) + 1e-6
        )


def move(model):
    """Random adapters, as after training: with B = 0 no gradient reaches A."""
    rng = np.random.default_rng(1)
    moved = [
        (path, leaf + mx.array(rng.normal(0, 0.1, leaf.shape).astype(np.float32)))
        for path, leaf in tree_flatten(model.trainable_parameters())
    ]
    model.update(tree_unflatten(moved))


def gradients(model):
    def loss(model):
        return mx.square(model(TOKENS, mx.ones(TOKENS.shape, dtype=mx.int32))).mean()

    return dict(tree_flatten(nn.value_and_grad(model, loss)(model)[1]))


def options_of(**keys):
    return split_node({"quantization": FOUR_BITS, **keys})[0]


@pytest.mark.parametrize(
    ("freeze", "trained"), [((), "all of them"), (("backbone.layers.*",), "backbone.embedding")]
)
def test_quantised_weights_cannot_be_trained(freeze, trained):
    model = build(kind="classification", quantization={}, freeze=freeze)
    with pytest.raises(ConfigError, match=f"cannot be trained .{trained}"):
        refuse_training(options_of(freeze=freeze), model)
