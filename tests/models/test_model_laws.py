"""Laws that every model keeps."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlxlab.backend.ops.dropout import Dropout
from mlxlab.errors import ConfigError
from mlxlab.models.bert import Bert
from mlxlab.models.cnn_hybrid import CnnHybrid, convolve
from mlxlab.models.initialization import initialize
from mlxlab.models.layers import (
    Attention,
)
from mlxlab.models.model import Model, build_head
from mlxlab.models.rope import Llama3Scaling
from mlxlab.models.transformer import Transformer

SMALL = dict(vocab_size=50, hidden_size=32, num_layers=2, num_heads=4, intermediate_size=48)  # noqa: C408

LEARNED = {"max_position_embeddings": 64}
HYBRID = LEARNED | {"num_filters": 16}
MODERN = LEARNED | {"position_embedding": "rope", "mlp_type": "geglu", "pre_norm": True}
MODERN |= {"num_token_types": 0, "bias": False, "first_attention_norm": False, "pooling": "mean"}
MODERN |= {"num_layers": 3, "global_attention_every": 2, "attention_window": 1}
MODERN |= {"local_rope_theta": 100.0}
QWEN = {"num_kv_heads": 2, "head_dim": 12, "attention_bias": "all", "qk_norm": True}
QWEN |= {"rope_scaling": Llama3Scaling(factor=4.0, original_max_position_embeddings=16)}
OLD = {"norm_type": "layer", "mlp_type": "gelu", "position_embedding": "learned"}
BACKBONES = {
    "bert": (Bert, LEARNED),
    "bert-rope-geglu-pre": (
        Bert,
        LEARNED | {"position_embedding": "rope", "mlp_type": "geglu", "pre_norm": True},
    ),
    "bert-modern": (Bert, MODERN),
    "hybrid": (CnnHybrid, HYBRID),
    "hybrid-concat": (CnnHybrid, HYBRID | {"fusion": "concat", "highway": False}),
    "transformer": (Transformer, {}),
    "transformer-grouped-untied": (Transformer, {"num_kv_heads": 2, "tie_embeddings": False}),
    "transformer-qwen": (Transformer, QWEN),
    "transformer-score": (Transformer, {"classifier_bias": False}),
    "transformer-old": (Transformer, OLD | LEARNED),
}
KINDS = ["classification", "language_modelling"]


def new_backbone(name, **changes):
    family, options = BACKBONES[name]
    return family(**SMALL | options | changes)


def new(name, kind="classification", dropout=0.0):
    backbone = new_backbone(name)
    model = Model(backbone, build_head(backbone, kind=kind, num_classes=3, dropout=dropout))
    initialize(model.backbone, 0, "backbone")
    initialize(model.head, 0, "head")
    # Larger weights than at the start: a law that holds for tiny numbers only would pass unseen.
    model.update(nn.utils.tree_map(lambda w: w * 3 if w.ndim > 1 else w, model.parameters()))
    mx.eval(model.parameters())
    return model.eval()


def tokens_and_segments(rows=3, length=9, seed=0):
    tokens = np.random.default_rng(seed).integers(0, 50, (rows, length)).astype(np.int32)
    return mx.array(tokens), mx.ones((rows, length), dtype=mx.int32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize(("left", "right"), [(0, 1), (0, 7), (0, 40), (5, 0)])
def test_padding_changes_nothing(name, kind, left, right):
    model = new(name, kind)
    tokens, segment_ids = tokens_and_segments()
    amounts = [(0, 0), (left, right)]
    padded = model(mx.pad(tokens, amounts, constant_values=7), mx.pad(segment_ids, amounts))
    if kind == "language_modelling":
        padded = padded[:, left : left + tokens.shape[1]]
    np.testing.assert_allclose(np.array(model(tokens, segment_ids)), np.array(padded), atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", BACKBONES)
def test_every_parameter_receives_a_gradient(name, kind):
    model = new(name, kind)
    tokens, segment_ids = tokens_and_segments(rows=4, length=16)
    targets = mx.array([0, 1, 2, 1]) if kind == "classification" else tokens

    def loss(model):
        return nn.losses.cross_entropy(model(tokens, segment_ids), targets).mean()

    _, gradients = nn.value_and_grad(model, loss)(model)
    without = [path for path, g in tree_flatten(gradients) if not np.abs(np.array(g)).max() > 0]
    # The key's bias moves all scores of a query alike: softmax does not see it.
    assert [path for path in without if not path.endswith("key.bias")] == []


@pytest.mark.parametrize("name", [name for name in BACKBONES if "transformer" in name])
def test_a_decoder_does_not_look_ahead(name):
    model = new(name, "language_modelling")
    tokens, segment_ids = tokens_and_segments()
    changed = mx.concatenate([tokens[:, :5], (tokens[:, 5:] + 1) % 50], axis=1)
    a, b = (np.array(model(t, segment_ids)) for t in (tokens, changed))
    np.testing.assert_allclose(a[:, :5], b[:, :5], atol=1e-6)
    assert np.abs(a[:, 5:] - b[:, 5:]).max() > 1e-3


@pytest.mark.parametrize("name", BACKBONES)
def test_documents_of_one_row_do_not_see_each_other(name):
    """Each is as if it were alone: attention, convolutions, their fusion, and the places counted from its start."""
    model = new(name, "language_modelling")
    tokens, ones = tokens_and_segments(length=12)
    numbers = mx.array([[1] * 4 + [2] * 5 + [3] + [0] * 2] * 3)
    together = np.array(model(tokens, numbers))
    for start, end in ((0, 4), (4, 9), (9, 10)):
        alone = np.array(model(tokens[:, start:end], ones[:, start:end]))
        np.testing.assert_allclose(together[:, start:end], alone, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", BACKBONES)
def test_a_mask_of_booleans_says_the_same(name, kind):
    """One document a row, padded on the right, while training (dropout in place, of no effect) and not."""
    model = new(name, kind)
    tokens, segment_ids = tokens_and_segments()
    numbers = mx.where(mx.arange(9) < mx.array([[9], [6], [1]]), segment_ids, 0)
    for training in (False, True):
        for layer in model.modules():
            if isinstance(layer, Dropout):
                layer.p = 1e-9
            if isinstance(layer, Attention):
                layer.dropout = 1e-9
        model.train(training)
        a, b = (np.array(model(tokens, given)) for given in (numbers, numbers > 0))
        if kind == "language_modelling":
            a, b = (x[np.array(numbers) > 0] for x in (a, b))
        np.testing.assert_allclose(a, b, atol=2e-5)
    model.eval()
    assert np.isfinite(np.array(model(tokens, mx.zeros_like(numbers) > 0))).all()


@pytest.mark.parametrize(
    ("kernel", "dilation"), [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (3, 2), (3, 4), (3, 30)]
)
def test_a_convolution_of_a_full_row_is_that_of_mlx(kernel, dilation):
    conv = nn.Conv1d(6, 5, kernel, dilation=dilation)
    x = mx.random.normal((2, 9, 6), key=mx.random.key(0))
    before, after = (kernel - 1) // 2 * dilation, kernel // 2 * dilation
    expected = conv(mx.pad(x, [(0, 0), (before, after), (0, 0)]))
    found = convolve(conv, x, mx.ones((2, 9), dtype=mx.int32), dilation)
    np.testing.assert_allclose(np.array(found), np.array(expected), atol=1e-5)


def test_padding_never_wins_the_maximum():
    """Even where every real feature is below what biases make of padding."""
    model = new("hybrid").backbone
    _, segment_ids = tokens_and_segments()
    x = mx.concatenate([mx.zeros((3, 9, 32)), mx.full((3, 9, 16), -50.0)], axis=-1)
    more = mx.concatenate([x, mx.zeros((3, 4, 48))], axis=1)
    padded = model.pool(more, mx.pad(segment_ids, [(0, 0), (0, 4)]))
    np.testing.assert_array_equal(np.array(model.pool(x, segment_ids)), np.array(padded))


@pytest.mark.parametrize("name", BACKBONES)
def test_a_row_of_padding_is_finite_and_does_not_change_the_other_rows(name):
    model, (tokens, segment_ids) = new(name), tokens_and_segments()
    padded = np.array(model(tokens, mx.pad(segment_ids[:2], [(0, 1), (0, 0)])))
    assert np.isfinite(padded).all()
    np.testing.assert_allclose(padded[:2], np.array(model(tokens[:2], segment_ids[:2])), atol=2e-5)


def test_dropout_acts_while_training_only():
    model = new("bert", dropout=0.1)
    tokens, segment_ids = tokens_and_segments()
    model.train()
    assert np.abs(np.array(model(tokens, segment_ids) - model(tokens, segment_ids))).max() > 0
    model.eval()
    np.testing.assert_array_equal(
        np.array(model(tokens, segment_ids)), np.array(model(tokens, segment_ids))
    )


def test_attention_with_and_without_the_fused_path_is_the_same():
    model = new_backbone("bert", dropout=1e-9)
    tokens, segment_ids = tokens_and_segments()
    model.train()
    slow = np.array(model(tokens, segment_ids))
    model.eval()
    np.testing.assert_allclose(slow, np.array(model(tokens, segment_ids)), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_heads": 5}, "5 heads do not divide a hidden size of 32"),
        ({"num_kv_heads": 3}, "3 key-value heads do not divide 4 heads"),
        ({"num_heads": 32}, "even head dimension, got 1"),
    ],
)
def test_heads_that_do_not_divide_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        Transformer(**(SMALL | changes))


@pytest.mark.parametrize("name", BACKBONES)
def test_initial_weights_are_normal_with_known_deviations(name):
    """Matrices of attention and feed-forward from N(0, 0.02), those into the residual stream of a decoder smaller."""
    backbone = new_backbone(name)
    initialize(backbone, 0, "backbone")
    leaves = dict(tree_flatten(backbone.parameters()))
    layer = "encoder.layers.1." if "hybrid" in name else "layers.1."
    for part, std in (
        ("attention.query", 0.02),
        ("feed_forward.down", 0.01 if "transformer" in name else 0.02),
    ):
        weight = np.array(leaves[f"{layer}{part}.weight"])
        assert abs(weight.std() / std - 1) < 0.1, part
    biases = [path for path in leaves if path.startswith(layer) and path.endswith("bias")]
    assert not any(leaves[path].any().item() for path in biases)


def test_a_row_longer_than_the_positions_is_refused():
    with pytest.raises(ValueError, match="65 tokens in a row"):
        new_backbone("bert")(*tokens_and_segments(length=65))
