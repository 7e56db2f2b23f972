"""Count models as baselines of a language model: smoothed as they should be, and without a trace in the run."""

import gzip
import json
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest

from mlxlab.data.batch import Batch, Task
from mlxlab.data.sources import text_files
from mlxlab.errors import DataError
from mlxlab.evaluation.at_end import EvaluationLimits, evaluate_at_end, trained_batches
from mlxlab.models.baselines.ngrams import ngram_baselines, ngram_losses
from support.models import make_run
from support.streams import as_lists, make_batches, open_source


class Repeated:
    """The same batch again and again, in epochs of two."""

    batch_size, batches_per_epoch, tokens_per_batch = 1, 2, None

    def __init__(self, batch):
        self.batch, self.position, self.read = batch, 0, 0

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


def state_after(data, steps):
    """The state of a run that took its batches in this number of steps."""
    state = make_run(data=data).state
    while state.progress.step < steps:
        for batch in islice(data, steps - state.progress.step):
            state.advance(batch)
    return state


def evaluate_text(state, valid, task):
    """The record of the final evaluation of a language model."""
    state.history.add_evaluation(1, {"valid/loss": 1.0}, "valid/loss")
    data = SimpleNamespace(task=task, valid=valid)
    return evaluate_at_end(state, data, None, "valid/loss", EvaluationLimits()).record


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


def test_the_unigram_is_the_entropy_of_the_targets_and_others_are_better_on_text_of_pairs():
    batch = batch_of([0, 1, 2] * 100)
    task, train = Task("language_modelling", 4, token_bytes=(1, 2, 3, 4)), Repeated(batch)
    trained = trained_batches(state_after(train, 51))
    results = ngram_baselines(task, [batch], trained)
    assert results["unigram"]["loss"] == pytest.approx(np.log(3))
    assert results["unigram"]["bits_per_byte"] == pytest.approx(
        np.log2(3) / 2
    )  # a token has 2 bytes on average
    assert results["bigram"]["loss"] < 0.01
    assert results["trigram"]["loss"] < results["bigram"]["loss"] + 0.01
    assert (train.position, train.read) == (51, 102)
    assert sum(each.tokens.size for each in trained) == 51 * 300


@pytest.mark.parametrize("context", [(0, 1), (3, 3), (4, 0)])
def test_the_probabilities_of_all_tokens_sum_to_one(context):
    seen = np.random.default_rng(0).integers(0, 5, (40, 3))
    losses = [ngram_losses(seen, np.array([[*context, token]]), 5)[-1] for token in range(5)]
    assert np.exp(-np.array(losses)).sum() == pytest.approx(1)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_only_data_that_was_trained_on_is_read_again(tmp_path, prefetch, caplog, monkeypatch):
    monkeypatch.setattr(text_files, "BLOCK_BYTES", 256)  # The malformed line is in a later block.
    path, task = tmp_path / "text.jsonl.gz", Task("language_modelling", 300)
    lines = [json.dumps({"text": "ab" * (20 + number)}) for number in range(40)]
    text = "\n".join([*lines[:20], "{", *lines[20:]]).encode()
    path.write_bytes(gzip.compress(text))  # read in the order of its lines
    data = make_batches(source=open_source(str(path), window=5), prefetch=prefetch, batch_size=4)
    position = data.state_dict()
    first = [as_lists(batch) for batch in islice(data, 12)]
    data.load_state_dict(position)
    state = state_after(data, 12)
    end = data.state_dict()
    assert [as_lists(batch) for batch in trained_batches(state)] == first
    assert data.state_dict() == end
    with pytest.raises(DataError, match=r"text\.jsonl\.gz:21"):
        list(data)
    data.load_state_dict(end)

    evaluation = evaluate_text(state, [batch_of([97, 98] * 9)], task)
    assert [*evaluation.results[0].baselines] == ["unigram", "bigram", "trigram"]
    path.write_bytes(gzip.compress(b"{\n" + text))
    evaluation = evaluate_text(state, [batch_of([97, 98] * 9)], task)
    assert [*evaluation.results[0].baselines] == ["unigram"]
    assert "no bigram and trigram baselines: " in caplog.text
    assert data.state_dict() == end


def test_batches_that_became_larger_hold_nothing_that_was_not_trained_on():
    data = make_batches(batch_size=2)
    state = state_after(data, 10)
    data.resize(8)
    assert (
        sum(len(batch.example_ids) for batch in trained_batches(state))
        <= state.progress.samples
        == 20
    )
