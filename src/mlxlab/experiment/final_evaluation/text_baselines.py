"""Baselines of a language model: counts of tokens, token pairs and triples. No neural network, a second to compute."""

import logging
import math
from collections.abc import Iterable, Mapping
from itertools import chain, islice, repeat
from typing import NamedTuple

import numpy as np

from mlxlab.data.batch import Batch, BatchIterator, Task
from mlxlab.errors import UserError
from mlxlab.metric_names import VALID, VALID_LOSS
from mlxlab.training.state import TrainState
from mlxlab.wording import one_line

MAX_BATCHES = 64
_MAX_TOKENS = 1_000_000
_DISCOUNT = 0.75  # of absolute discounting

logger = logging.getLogger(__name__)


class TextBaselines(NamedTuple):
    """`metrics` by the name of the baseline, and the training tokens in which pairs and triples were counted."""

    metrics: Mapping[str, dict[str, float]]
    counted_tokens: int = 0


NO_BASELINES = TextBaselines({})


def text_baselines(
    state: TrainState, valid: Iterable[Batch], task: Task, limit: int
) -> TextBaselines:
    """Loss and, where the bytes of tokens are known, bits per byte.

    `unigram` is the entropy of the validation targets themselves. The others count the first training batches, at most
    as many as the model saw, and are smoothed by interpolated absolute discounting (Ney, Essen and Kneser 1994); they
    are left out with a warning where that data cannot be read again.

    Args:
        state: the position of its data stays what it is.
        limit: validation batches at most.
    """
    batches = list(islice(valid, limit))
    grams, targets = _grams(batches, 3), _targets(batches)
    losses, counted_tokens = {"unigram": _entropy(targets)}, 0
    if not task.masked and len(targets):
        try:
            trained = trained_batches(state)
            seen = _grams(trained, 3)
        except UserError as error:
            logger.warning(f"no bigram and trigram baselines: {one_line(str(error), 300)}")
        else:
            _, losses["bigram"], losses["trigram"] = _ngram_losses(seen, grams, task.num_classes)
            counted_tokens = len(seen)
    known = (
        sum(np.array(task.token_bytes)[targets].tolist())
        if len(task.token_bytes) and len(targets)
        else 0
    )
    bits = len(targets) / math.log(2) / known if known else 0.0
    metrics = {
        name: {VALID_LOSS: loss} | ({f"{VALID}bits_per_byte": loss * bits} if bits else {})
        for name, loss in losses.items()
    }
    return TextBaselines(metrics, counted_tokens)


def trained_batches(state: TrainState) -> list[Batch]:
    """The first batches of the run, none of examples that it was not trained on; the position is restored."""
    data, progress = state.data, state.progress
    position = data.state_dict()
    try:
        data.load_state_dict(state.first_position)
        return _read_batches(data, min(progress.step, MAX_BATCHES), progress.samples)
    finally:
        data.load_state_dict(position)


def _read_batches(data: BatchIterator, count: int, samples: int) -> list[Batch]:
    """The next batches, over the end of an epoch; fewer than `count` if they are long, or hold more than `samples`.

    The last one of an epoch may hold fewer than the others; all hold more where the batch size was smaller before.
    """
    batches, tokens = list[Batch](), 0
    for batch in islice(chain.from_iterable(repeat(data)), count):
        samples -= int(np.count_nonzero(batch.example_ids >= 0))
        if batches and samples < 0:
            break
        batches.append(batch)
        tokens += batch.tokens.size
        if tokens > _MAX_TOKENS:
            break
    return batches


def _targets(batches: Iterable[Batch]) -> np.ndarray:
    return np.concatenate(
        [np.zeros(0, np.int32), *(batch.targets[batch.loss_weights > 0] for batch in batches)]
    )


def _grams(batches: Iterable[Batch], size: int) -> np.ndarray:
    """(N, size) int64: each target after the tokens before it; -1 before the first token of a row."""
    rows = [np.zeros((0, size), np.int64)]
    for batch in batches:
        if batch.targets.shape != batch.tokens.shape:
            continue
        width = batch.tokens.shape[1]
        before = np.pad(batch.tokens.astype(np.int64), ((0, 0), (size - 2, 0)), constant_values=-1)
        context = [before[:, offset : offset + width] for offset in range(size - 1)]
        rows.append(
            np.stack([*context, batch.targets.astype(np.int64)], axis=2)[batch.loss_weights > 0]
        )
    return np.concatenate(rows)


def _entropy(targets: np.ndarray) -> float:
    _, counts = np.unique(targets, return_counts=True)
    shares = counts / max(counts.sum(), 1)
    return float(-(shares * np.log(shares)).sum())


def _ngram_losses(seen: np.ndarray, grams: np.ndarray, vocab_size: int) -> list[float]:
    """Mean loss in nats of the last column of `grams`, given none of the columns before it, the last one, and so on."""
    probability, losses = np.full(len(grams), 1 / vocab_size), []
    for size in range(1, grams.shape[1] + 1):
        probability = _interpolate(seen[:, -size:], grams[:, -size:], vocab_size, probability)
        losses.append(float(-np.log(probability).mean()))
    return losses


def _interpolate(
    seen: np.ndarray, grams: np.ndarray, vocab_size: int, lower: np.ndarray
) -> np.ndarray:
    """Discounted counts of whole n-grams, and what that leaves times the probability by shorter contexts."""
    keys, counts = np.unique(_keys(seen, vocab_size), return_counts=True)
    contexts, first = np.unique(keys // (vocab_size + 1), return_index=True)
    totals, continuations = (
        np.add.reduceat(each, first) if len(first) else first for each in (counts, counts > 0)
    )
    queries = _keys(grams, vocab_size)
    count = _look_up(keys, counts, queries)
    total, num_continuations = (
        _look_up(contexts, values, queries // (vocab_size + 1))
        for values in (totals, continuations)
    )
    divisor = np.maximum(total, 1)
    mixed = (
        np.maximum(count - _DISCOUNT, 0) / divisor + _DISCOUNT * num_continuations / divisor * lower
    )
    return np.where(total > 0, mixed, lower)


def _keys(grams: np.ndarray, vocab_size: int) -> np.ndarray:
    """One number for each row, of which the last token is the remainder."""
    keys = np.zeros(len(grams), np.int64)
    for column in grams.T:
        keys = keys * (vocab_size + 1) + column + 1
    return keys


def _look_up(keys: np.ndarray, values: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The value of each key; 0 of keys that do not occur."""
    if not len(keys):
        return np.zeros(len(queries))
    index = np.minimum(np.searchsorted(keys, queries), len(keys) - 1)
    return np.where(keys[index] == queries, values[index], 0)
