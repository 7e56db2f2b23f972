"""Baselines of a language model: counts of tokens, token pairs and triples. No neural network, a second to compute."""

import math
from collections.abc import Iterable, Mapping
from itertools import chain, islice, repeat

import numpy as np

from mlxlab.data.batch import Batch, BatchIterator, Task
from mlxlab.data.vocabulary.remapping import IS_CORE
from mlxlab.metric_names import VALID, VALID_LOSS

MAX_BATCHES = 64
_MAX_TOKENS = 1_000_000
_DISCOUNT = 0.75  # of absolute discounting
_NAMES = ("unigram", "bigram", "trigram")


def text_baselines(
    train: BatchIterator, valid: Iterable[Batch], task: Task, steps: int, limit: int
) -> Mapping[str, dict[str, float]]:
    """Loss and, where the bytes of tokens are known, bits per byte by the name of the baseline.

    `unigram` is the entropy of the validation targets themselves. The others count the first training batches, at most
    as many as the model saw, and are smoothed by interpolated absolute discounting (Ney, Essen and Kneser 1994).

    Args:
        train: its position stays what it is.
        limit: validation batches at most.
    """
    batches = list(islice(valid, limit))
    grams, targets = _grams(batches, 3), _targets(batches)
    losses = {"unigram": _entropy(targets)}
    if not task.masked and len(targets) and not any(IS_CORE in batch.aux for batch in batches):
        seen = _grams(_first_batches(train, min(steps, MAX_BATCHES)), 3)
        losses |= {_NAMES[n - 1]: _ngram_loss(seen[:, -n:], grams[:, -n:], task.num_classes) for n in (2, 3)}
    known = sum(np.array(task.token_bytes)[targets].tolist()) if len(task.token_bytes) and len(targets) else 0
    bits = len(targets) / math.log(2) / known if known else 0.0
    return {
        name: {VALID_LOSS: loss} | ({f"{VALID}bits_per_byte": loss * bits} if bits else {})
        for name, loss in losses.items()
    }


def _first_batches(train: BatchIterator, count: int) -> list[Batch]:
    """Batches from the current position on, over the end of an epoch; the position is restored."""
    position, batches, tokens = train.state_dict(), [], 0
    try:
        for batch in islice(chain.from_iterable(repeat(train)), count):
            batches.append(batch)
            tokens += batch.tokens.size
            if tokens > _MAX_TOKENS:
                break
    finally:
        train.load_state_dict(position)
    return batches


def _targets(batches: Iterable[Batch]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int32), *(batch.targets[batch.loss_weights > 0] for batch in batches)])


def _grams(batches: Iterable[Batch], size: int) -> np.ndarray:
    """(N, size) int64: each target after the tokens before it; -1 before the first token of a row."""
    rows = [np.zeros((0, size), np.int64)]
    for batch in batches:
        if batch.targets.shape != batch.tokens.shape:
            continue
        width = batch.tokens.shape[1]
        before = np.pad(batch.tokens.astype(np.int64), ((0, 0), (size - 2, 0)), constant_values=-1)
        context = [before[:, offset : offset + width] for offset in range(size - 1)]
        rows.append(np.stack([*context, batch.targets.astype(np.int64)], axis=2)[batch.loss_weights > 0])
    return np.concatenate(rows)


def _entropy(targets: np.ndarray) -> float:
    _, counts = np.unique(targets, return_counts=True)
    shares = counts / max(counts.sum(), 1)
    return float(-(shares * np.log(shares)).sum())


def _ngram_loss(seen: np.ndarray, grams: np.ndarray, vocab_size: int) -> float:
    """Mean loss in nats of the last column of `grams`, given the other ones."""
    probability = np.full(len(grams), 1 / vocab_size)
    for size in range(1, grams.shape[1] + 1):
        probability = _interpolate(seen[:, -size:], grams[:, -size:], vocab_size, probability)
    return float(-np.log(probability).mean())


def _interpolate(seen: np.ndarray, grams: np.ndarray, vocab_size: int, lower: np.ndarray) -> np.ndarray:
    """Discounted counts of whole n-grams, and what that leaves times the probability by shorter contexts."""
    keys, counts = np.unique(_keys(seen, vocab_size), return_counts=True)
    contexts, first = np.unique(keys // (vocab_size + 1), return_index=True)
    totals, kinds = (np.add.reduceat(each, first) if len(first) else first for each in (counts, counts > 0))
    wanted = _keys(grams, vocab_size)
    count = _look_up(keys, counts, wanted)
    total, kind = (_look_up(contexts, values, wanted // (vocab_size + 1)) for values in (totals, kinds))
    known = np.maximum(total, 1)
    mixed = np.maximum(count - _DISCOUNT, 0) / known + _DISCOUNT * kind / known * lower
    return np.where(total > 0, mixed, lower)


def _keys(grams: np.ndarray, vocab_size: int) -> np.ndarray:
    """One number for each row, of which the last token is the remainder."""
    keys = np.zeros(len(grams), np.int64)
    for column in grams.T:
        keys = keys * (vocab_size + 1) + column + 1
    return keys


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The value of each key; 0 of keys that do not occur."""
    if not len(keys):
        return np.zeros(len(wanted))
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)
