"""Metrics of language models with a smaller vocabulary, compared with those in the full one."""

import math

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.data.batch import match_vocab_size
from mlxlab.training.evaluate import evaluate
from support.vocabulary import text_data


class Unigram:
    """The same logits for every target."""

    training = False

    def __init__(self, logits):
        self.logits = logits

    def eval(self):
        pass

    def train(self, training):
        pass

    def __call__(self, tokens, segment_ids):
        return mx.broadcast_to(mx.array(self.logits), (*tokens.shape, len(self.logits)))


@pytest.mark.parametrize("masked", [False, True])
def test_bits_per_byte_are_those_of_the_full_vocabulary_with_the_rare_tokens_equally_likely(
    tmp_path, masked
):
    full, mapped = (text_data(tmp_path, size, masked=masked) for size in (None, 10))
    vocabulary = mapped.tokenizer.vocabulary
    logits = np.random.default_rng(0).normal(size=vocabulary.size).astype(np.float32)
    spread = logits[vocabulary.forward] - np.where(
        vocabulary.is_core, 0, math.log(vocabulary.num_rare)
    )
    small = evaluate(Unigram(logits), mapped.valid, mapped.task).metrics
    large = evaluate(Unigram(spread.astype(np.float32)), full.valid, full.task).metrics
    assert small["loss"] < large["loss"]
    assert small["bits_per_byte"] == pytest.approx(large["bits_per_byte"], rel=1e-6)
    targets = np.concatenate([batch.targets[batch.loss_weights > 0] for batch in full.valid])
    is_core = vocabulary.is_core[targets]
    best = vocabulary.core_ids[logits[:-1].argmax()] if logits.argmax() < vocabulary.rare_id else -1
    assert small["rare_share"] == pytest.approx(1 - is_core.mean())
    assert small["core_accuracy"] == pytest.approx((targets[is_core] == best).mean())
    assert {"core_accuracy", "rare_share"}.isdisjoint(large)
    match_vocab_size(mapped.train, full.tokenizer.vocab_size)
    grown = evaluate(Unigram(spread.astype(np.float32)), mapped.valid, mapped.task).metrics
    assert grown["bits_per_byte"] == pytest.approx(large["bits_per_byte"], rel=1e-6)
    assert grown["rare_share"] == pytest.approx(small["rare_share"])


def test_core_accuracy_counts_no_rare_target(tmp_path):
    mapped = text_data(tmp_path, 10)
    vocabulary = mapped.tokenizer.vocabulary
    always_rare = np.zeros(vocabulary.size, np.float32)
    always_rare[vocabulary.rare_id] = 9.0
    metrics = evaluate(Unigram(always_rare), mapped.valid, mapped.task).metrics
    assert metrics["core_accuracy"] == 0.0
    assert 0 < metrics["rare_share"] < 1
