"""Count models as baselines of a language model: smoothed as they should be, and without a trace in the run."""

import numpy as np
import pytest

from mlxlab.data.batch import Batch, Task
from mlxlab.experiment.final_evaluation.text_baselines import _ngram_loss, text_baselines


class Repeated:
    """The same batch again and again, in epochs of two."""

    def __init__(self, batch):
        self.batch, self.position, self.read = batch, 7, 0

    def __iter__(self):
        while True:
            self.position, self.read = self.position + 1, self.read + 1
            yield self.batch
            if self.position % 2 == 0:
                return

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]


def batch_of(tokens, weights=1.0):
    tokens = np.array([tokens], np.int32)
    targets = np.roll(tokens, -1, axis=1)
    return Batch(tokens, tokens * 0 + 1, targets, np.zeros(tokens.shape, np.float32) + weights, np.zeros(1, np.int64))


def test_the_unigram_is_the_entropy_of_the_targets_and_others_are_better_on_text_of_pairs():
    batch = batch_of([0, 1, 2] * 100)
    task, train = Task("language_modelling", 4, token_bytes=(1, 2, 3, 4)), Repeated(batch)
    results = text_baselines(train, [batch], task, 50, 9)
    assert results["unigram"]["valid/loss"] == pytest.approx(np.log(3))
    assert results["unigram"]["valid/bits_per_byte"] == pytest.approx(np.log2(3) / 2)  # a token has 2 bytes on average
    assert results["bigram"]["valid/loss"] < 0.01
    assert results["trigram"]["valid/loss"] < results["bigram"]["valid/loss"] + 0.01
    assert (train.position, train.read) == (7, 50)


def test_a_masked_model_has_no_counts_of_pairs_and_no_targets_are_no_error():
    task = Task("language_modelling", 4, masked=True)
    assert [*text_baselines(Repeated(batch_of([0, 1])), [batch_of([0, 1])], task, 5, 9)] == ["unigram"]
    assert text_baselines(Repeated(batch_of([0])), [], task, 5, 9) == {"unigram": {"valid/loss": 0.0}}


@pytest.mark.parametrize("context", [(0, 1), (3, 3), (4, 0)])
def test_the_probabilities_of_all_tokens_sum_to_one(context):
    seen = np.random.default_rng(0).integers(0, 5, (40, 3))
    losses = [_ngram_loss(seen, np.array([[*context, token]]), 5) for token in range(5)]
    assert np.exp(-np.array(losses)).sum() == pytest.approx(1)
