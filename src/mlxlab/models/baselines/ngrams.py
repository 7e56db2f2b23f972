"""Baselines of a language model: how often tokens, pairs and triples of tokens occur."""

import math
from collections.abc import Sequence

import numpy as np

from mlxlab.data.batch import Batch, Task

DISCOUNT = 0.75  # It is taken off each count and given to the n-grams that were not seen.
NAMES = {2: "bigram", 3: "trigram"}


def ngram_baselines(
    task: Task, valid: Sequence[Batch], trained: Sequence[Batch]
) -> dict[str, dict[str, float]]:
    """The loss of each baseline and, where the bytes of tokens are known, its bits per byte.

    `unigram` is the entropy of the validation targets themselves. `bigram` and `trigram` count training batches and
    are smoothed by interpolated absolute discounting (Ney, Essen and Kneser 1994); there are none without batches.
    """
    grams = extract_ngrams(valid, 3)
    targets = grams[:, -1]
    losses = {"unigram": entropy(targets)}
    if trained and len(targets):
        seen = extract_ngrams(trained, 3)
        by_size = ngram_losses(seen, grams, task.num_classes)
        losses |= {name: by_size[size - 1] for size, name in NAMES.items()}

    num_bytes = 0
    if len(task.token_bytes):
        num_bytes = int(np.array(task.token_bytes)[targets].sum())
    metrics = {name: {"loss": loss} for name, loss in losses.items()}
    if num_bytes:
        for each in metrics.values():
            each["bits_per_byte"] = each["loss"] / math.log(2) * len(targets) / num_bytes
    return metrics


def extract_ngrams(batches: Sequence[Batch], size: int) -> np.ndarray:
    """(N, size) int64: each target after the tokens before it; -1 before the first token of a row."""
    grams = [np.zeros((0, size), np.int64)]
    for batch in batches:
        width = batch.tokens.shape[1]
        tokens = np.pad(batch.tokens.astype(np.int64), ((0, 0), (size - 2, 0)), constant_values=-1)
        context = [tokens[:, offset : offset + width] for offset in range(size - 1)]
        rows = np.stack([*context, batch.targets.astype(np.int64)], axis=2)  # (B, T, size)
        grams.append(rows[batch.loss_weights > 0])
    return np.concatenate(grams)


def entropy(targets: np.ndarray) -> float:
    """The entropy of the frequencies of tokens, in nats."""
    _, counts = np.unique(targets, return_counts=True)
    shares = counts / max(counts.sum(), 1)
    return float(-(shares * np.log(shares)).sum())


def ngram_losses(seen: np.ndarray, grams: np.ndarray, vocab_size: int) -> list[float]:
    """The mean loss of the last column of `grams` in nats, given no column before it, the last one, and so on."""
    probability = np.full(len(grams), 1 / vocab_size)
    losses = []
    for size in range(1, grams.shape[1] + 1):
        probability = _interpolate(seen[:, -size:], grams[:, -size:], vocab_size, probability)
        losses.append(float(-np.log(probability).mean()))
    return losses


def _interpolate(
    seen: np.ndarray, grams: np.ndarray, vocab_size: int, lower: np.ndarray
) -> np.ndarray:
    """Discounted counts of n-grams, and what that leaves times the probability by shorter contexts."""
    base = vocab_size + 1
    keys, index = np.unique(_keys(np.concatenate([seen, grams]), base), return_inverse=True)
    context_of = np.unique(keys // base, return_inverse=True)[1]
    counts = np.bincount(index[: len(seen)], minlength=len(keys))
    totals = np.bincount(context_of, counts)
    continuations = np.bincount(context_of, counts > 0)

    gram = index[len(seen) :]
    context = context_of[gram]
    total = totals[context]
    divisor = np.maximum(total, 1)
    discounted = np.maximum(counts[gram] - DISCOUNT, 0) / divisor
    mixed = discounted + DISCOUNT * continuations[context] / divisor * lower
    return np.where(total > 0, mixed, lower)


def _keys(grams: np.ndarray, base: int) -> np.ndarray:
    """One number for each row, of which the last token is the remainder."""
    keys = np.zeros(len(grams), np.int64)
    for column in grams.T:
        keys = keys * base + column + 1
    return keys
