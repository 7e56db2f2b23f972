"""Pairs of texts: BERT gives the tokens after the first separator the second type embedding."""

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.models.bert import Bert
from mlxlab.models.build import build_model

SEPARATOR, VOCABULARY = 3, 20
SHAPE = {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "intermediate_size": 24}
SHAPE |= {"dropout": 0.0}
ROWS = [  # tokens and their types: two texts, one text, an empty second one, separators after the first of a pair
    ([5, 6, 3, 7, 8, 3], [0, 0, 0, 1, 1, 1]),
    ([5, 6, 7, 8, 9, 3], [0, 0, 0, 0, 0, 0]),
    ([5, 3, 3, 7, 3, 7], [0, 0, 1, 1, 1, 1]),
]


def with_types(backbone: Bert) -> np.ndarray:
    """States of a model of single texts whose vocabulary has every token a second time, for the second type."""
    size = backbone.embedding.weight.shape[0]
    first, second = backbone.type_embedding.weight
    backbone.embedding.weight = mx.concatenate(
        [backbone.embedding.weight, backbone.embedding.weight + second - first]
    )
    tokens = mx.array(
        [[token + size * kind for token, kind in zip(*row, strict=True)] for row in ROWS]
    )
    return np.array(backbone(tokens, mx.ones_like(tokens)))


def build(pair_separator, family="bert"):
    target = {"bert": "bert.Bert", "cnn_hybrid": "cnn_hybrid.CnnHybrid"}[family]
    options = {"num_filters": 4, "branch_dropout": 0.0} if family == "cnn_hybrid" else {}
    node = {"_target_": f"mlxlab.models.{target}", **SHAPE, **options}
    sizes = {"vocab_size": VOCABULARY, "num_classes": 2, "pair_separator": pair_separator}
    return build_model(node, kind="classification", seed=0, **sizes)


def test_the_tokens_after_the_first_separator_have_the_second_type():
    tokens = mx.array([tokens for tokens, _ in ROWS])
    states = np.array(build(SEPARATOR).backbone(tokens, mx.ones_like(tokens)))
    np.testing.assert_allclose(states, with_types(build(None).backbone), atol=1e-6)


@pytest.mark.parametrize("family", ["bert", "cnn_hybrid"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_of_separators_changes_nothing(family, side):
    model = build(SEPARATOR, family).eval()
    tokens = mx.array([tokens for tokens, _ in ROWS])
    amounts = [(0, 0), (3, 0) if side == "left" else (0, 3)]
    padded = mx.pad(tokens, amounts, constant_values=SEPARATOR)
    real = mx.ones_like(tokens)
    actual = model(padded, mx.pad(real, amounts))
    np.testing.assert_allclose(np.array(actual), np.array(model(tokens, real)), atol=1e-6)
