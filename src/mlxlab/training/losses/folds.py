"""The loss of networks that are trained side by side, each without the rows of one fold."""

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn

from mlxlab.data.batch import FOLDS
from mlxlab.training.device_batch import DeviceBatch


def batch_losses(
    of_logits: Callable[[mx.array, mx.array], mx.array], model: nn.Module, batch: DeviceBatch
) -> mx.array:
    """The loss of each target of a batch."""
    logits = model(batch.tokens, batch.segment_ids)
    if FOLDS in batch.aux:
        return fold_losses(of_logits, logits, batch.targets, batch.aux[FOLDS])
    return of_logits(logits, batch.targets)


def fold_losses(
    of_logits: Callable[[mx.array, mx.array], mx.array],
    logits: mx.array,
    targets: mx.array,
    folds: mx.array,
) -> mx.array:
    """The mean loss of each target over the networks that learn from its row, in the shape of `targets`.

    Args:
        of_logits: logits (N, C) and N targets -> N losses.
        logits: (F, K, B, C) of K members in each of F folds.
        folds: (B,) the fold that does not learn from the row.
    """
    num_folds, members, rows, classes = logits.shape
    shape = (num_folds, members, *targets.shape)
    repeated = mx.broadcast_to(targets, shape).reshape(-1, *targets.shape[1:])
    losses = of_logits(logits.reshape(-1, classes), repeated).reshape(shape).mean(axis=1)
    learns = folds != mx.arange(num_folds)[:, None]  # (F, B)
    learns = learns.reshape(num_folds, rows, *[1] * (targets.ndim - 1))
    return mx.where(learns, losses, 0).sum(axis=0) / (num_folds - 1)
