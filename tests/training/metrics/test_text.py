"""Bits per byte of language models."""

import math

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.data.batch import Batch, Task
from mlxlab.training.evaluate import evaluate

TARGETS = np.array([[1, 2, 3], [3, 3, 0]], np.int32)
WEIGHTS = np.array([[1, 1, 1], [1, 1, 0]], np.float32)


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


def metrics_with(token_bytes):
    segment_ids = np.ones_like(TARGETS)
    batch = Batch(TARGETS, segment_ids, TARGETS, WEIGHTS, np.arange(2))
    task = Task("language_modelling", 4, token_bytes=token_bytes)
    return evaluate(Unigram(np.zeros(4, np.float32)), [batch], task).metrics


def test_bits_per_byte_are_the_loss_of_the_targets_by_their_bytes():
    metrics = metrics_with((0, 1, 2, 5))
    assert metrics["loss"] == pytest.approx(math.log(4))
    assert metrics["bits_per_byte"] == pytest.approx(5 * 2 / (1 + 2 + 3 * 5))


def test_without_the_bytes_of_tokens_there_are_no_bits_per_byte():
    assert metrics_with(()).keys() == {"loss", "perplexity"}
