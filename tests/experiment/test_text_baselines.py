"""Token frequencies as the baseline of a language model."""

from types import SimpleNamespace

import numpy as np
import pytest

from mlxlab.data.batch import Batch, Task
from mlxlab.experiment.evaluate import evaluate_at_end, unigram
from support.models import make_run


def batch_of(tokens, weights=1.0):
    tokens = np.array([tokens], np.int32)
    targets = np.roll(tokens, -1, axis=1)
    return Batch(
        tokens,
        tokens * 0 + 1,
        targets,
        np.zeros(tokens.shape, np.float32) + weights,
        np.zeros(1, np.int64),
    )


def test_the_unigram_is_the_entropy_of_the_targets():
    task = Task("language_modelling", 4, token_bytes=(1, 2, 3, 4))
    results = unigram(task, [batch_of([0, 1, 2] * 100), batch_of([3, 3], weights=0.0)])
    assert results["loss"] == pytest.approx(np.log(3))
    # A token has 2 bytes on average.
    assert results["bits_per_byte"] == pytest.approx(np.log2(3) / 2)
    assert unigram(task, []) == {"loss": 0.0}


def test_a_language_model_is_compared_with_token_frequencies():
    state = make_run().state
    state.history.add_evaluation(1, {"valid/loss": 1.0}, "valid/loss")
    task = Task("language_modelling", 4, masked=True)
    data = SimpleNamespace(task=task, valid=[batch_of([0, 1])])
    [result] = evaluate_at_end(state, data, None, "valid/loss", None).record.results
    assert result.baselines == {"unigram": {"loss": pytest.approx(np.log(2))}}
