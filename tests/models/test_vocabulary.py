"""Rows of pretrained weights for the kept tokens."""

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.data.vocabulary.vocabulary_map import VocabularyLimit, VocabularyMap
from mlxlab.models.bert import Bert
from mlxlab.models.model import Model, build_head
from mlxlab.models.transformer import Transformer
from mlxlab.models.vocabulary import keep_rows

SHAPE = {
    "vocab_size": 14,
    "hidden_size": 8,
    "num_layers": 1,
    "num_heads": 2,
    "intermediate_size": 8,
}
BACKBONES = {
    "tied": lambda: Transformer(**SHAPE),
    "untied": lambda: Transformer(**SHAPE, tie_embeddings=False),
    "masked": lambda: Bert(**SHAPE),
}


@pytest.mark.parametrize("kind", BACKBONES)
def test_the_logits_of_kept_tokens_are_those_of_the_pretrained_model(kind):
    """The pretrained model has two rows more than the tokenizer has tokens."""
    mx.random.seed(0)
    counts = np.array([5, 0, 7, 1, 9, 2, 8, 3, 0, 4, 6, 1])
    kept = np.array([0, 2, 4, 6, 10])
    vocabulary = VocabularyMap(kept, 12, "", VocabularyLimit(5, None), counts)
    backbone = BACKBONES[kind]()
    model = Model(backbone, build_head(backbone, kind="language_modelling")).eval()
    tokens = mx.array([[4, 0, 10, 2]])
    before, embedding = (
        model(tokens, mx.ones((1, 4), mx.int32)),
        np.array(backbone.embedding.weight),
    )
    keep_rows(backbone, model.head, vocabulary)
    after = model(mx.array(vocabulary.forward[np.array(tokens)]), mx.ones((1, 4), mx.int32))
    assert after.shape == (1, 4, 6)
    np.testing.assert_allclose(np.array(after)[..., :5], np.array(before)[..., kept], atol=1e-6)
    rare = [1, 3, 5, 7, 8, 9, 11]
    mean = np.average(embedding[rare], axis=0, weights=counts[rare] + 1)
    np.testing.assert_allclose(np.array(backbone.embedding.weight)[5], mean, atol=1e-6)
