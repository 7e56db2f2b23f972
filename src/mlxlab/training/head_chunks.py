"""The head of a language model: for the tokens that have a target, by chunks, so that (B, T, V) logits are never held.

In instruction tuning and masked language modelling most tokens have no target: their logits would be multiplied by 0.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeGuard, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from mlxlab.backend.ops.cross_entropy import cross_entropy
from mlxlab.backend.ops.dropout import Dropout
from mlxlab.backend.ops.exp import Arrays, with_gradient
from mlxlab.models.model import CausalHead, MaskedHead, Model
from mlxlab.schema.constraints import Size
from mlxlab.training.device_batch import DeviceBatch
from mlxlab.training.losses.loss import LogitLoss, LossFunction, LossTerms
from mlxlab.training.optim.optimizers import Tree

# `auto` computes the logits in chunks if they take more than MAX_BYTES in float32.
MAX_BYTES = 1 << 30
CHUNK_BYTES = 1 << 28

# `aux` names so, (N,) int32, positions in the flat batch, among them all that have a target.
TARGET_INDEX = "target_index"
INDEX_SIZES = (
    8  # different N at most, for batches of one shape: a compiled step is traced for each of them
)

HeadChunk = Size | Literal["auto"] | None  # tokens of a chunk; None is all


@dataclass(frozen=True)
class ChunkedLoss:
    """A loss whose logits are computed in chunks, and again for the gradient, where it and the model allow that.

    Of a batch with a `TARGET_INDEX` only the logits at that index are computed; the loss is 0 elsewhere.
    """

    loss: LossFunction
    chunk: HeadChunk

    def __call__(self, model: nn.Module, batch: DeviceBatch) -> LossTerms:
        index = batch.aux.get(TARGET_INDEX)
        size = chunk_size(model, batch, self.chunk)
        if (index is None and size is None) or not (
            isinstance(self.loss, LogitLoss) and computes_parts(model)
        ):
            return self.loss(model, batch)
        x, targets = _states_and_targets(model, batch, index)
        if size is None:
            values = self.loss.of_logits(model.logits(x), targets)
        else:
            values = _chunked_values(model, x, targets, self.loss, size)
        return LossTerms(_at_index(values, index, batch.targets.shape), {})


def computes_parts(model: nn.Module) -> TypeGuard[Model]:
    """Whether the logits of some tokens can be computed without those of all, and again."""
    return _has_separate_head(model) and not _drops_out(model)


def with_target_index(batch: DeviceBatch) -> DeviceBatch:
    """The batch with a `TARGET_INDEX`, unless nearly all tokens have a target. Reads the weights of the batch."""
    weights = np.array(batch.loss_weights).reshape(-1)
    is_target = weights > 0
    quantum = -(-len(weights) // INDEX_SIZES)
    count = max(-(-int(is_target.sum()) // quantum), 1) * quantum
    if count >= len(weights):
        return batch
    # All targets and the first other tokens, in the order of the batch.
    index = np.sort(np.argsort(~is_target, kind="stable")[:count])
    return batch._replace(aux={**batch.aux, TARGET_INDEX: mx.array(index.astype(np.int32))})


def chunk_size(model: nn.Module, batch: DeviceBatch, chunk: HeadChunk) -> int | None:
    """Tokens of a chunk; None if the logits are computed at once: they fit, or the model is no language model."""
    if chunk is None or not _has_separate_head(model):
        return None
    tokens = batch.aux.get(TARGET_INDEX, batch.tokens).size
    if chunk == "auto":
        token_bytes = 4 * model.backbone.embedding.weight.shape[0]
        if tokens * token_bytes <= MAX_BYTES:
            return None
        chunk = max(CHUNK_BYTES // token_bytes, 1)
    if chunk >= tokens:
        return None
    return chunk


def token_losses(model: nn.Module, batch: DeviceBatch) -> mx.array:
    """Cross-entropy of each target: (B, T). Has no gradient."""
    if not _has_separate_head(model):
        logits = model(batch.tokens, batch.segment_ids).astype(mx.float32)
        return cross_entropy(logits, batch.targets)
    batch = with_target_index(batch)
    index = batch.aux.get(TARGET_INDEX)
    size = chunk_size(model, batch, "auto")
    x, targets = _states_and_targets(model, batch, index)
    losses: list[mx.array] = []
    for rows in _slices(len(x), size or len(x)):
        logits = model.logits(x[rows]).astype(mx.float32)
        losses.append(cross_entropy(logits, targets[rows]))
        mx.eval(losses[-1])  # before the logits of the next chunk are computed
    return _at_index(mx.concatenate(losses), index, batch.targets.shape)


def _has_separate_head(model: nn.Module) -> TypeGuard[Model]:
    if not isinstance(model, Model):
        return False
    return isinstance(model.head, MaskedHead) or (
        isinstance(model.head, CausalHead) and not model.head.is_identity
    )


def _drops_out(model: Model) -> bool:
    """True if the head draws random numbers, which would be others when it is computed again."""
    modules = [*model.head.modules(), *model.backbone.embedding.modules()]
    return any(
        isinstance(module, Dropout) and module.p > 0 and module.training for module in modules
    )


def _chunked_values(
    model: Model, x: mx.array, targets: mx.array, loss: LogitLoss, size: int
) -> mx.array:
    """States (N, O), targets (N,) -> losses (N,). Each chunk waits for the one before, or MLX would hold several."""
    layers = {"head": model.head, "embedding": model.backbone.embedding}
    trained = cast(list[tuple[str, mx.array]], tree_flatten(_trained(layers)))

    def values(x: mx.array, targets: mx.array, weights: Sequence[mx.array]) -> mx.array:
        new = [(name, weight) for (name, _), weight in zip(trained, weights, strict=True)]
        with _replaced(layers, dict(tree_unflatten(new))):
            return loss.of_logits(model.logits(x), targets)

    def forward(x: mx.array, *weights: mx.array) -> Arrays:
        out = list[mx.array]()
        for rows in _slices(len(x), size):
            (chunk,) = mx.depends([x[rows]], out[-1:] or [x])
            out.append(values(chunk, targets[rows], weights))
        return (mx.concatenate(out),)

    def gradient(inputs: Arrays, cotangent: mx.array, outputs: Arrays) -> Arrays:
        x, *weights = inputs
        slopes = list[mx.array]()
        done = list(outputs)
        sums = [mx.zeros(weight.shape) for weight in weights]  # float32: every chunk adds to them
        for rows in _slices(len(x), size):
            (chunk,) = mx.depends([x[rows]], done)
            _, (slope, *parts) = mx.vjp(
                lambda chunk, *weights, rows=rows: values(chunk, targets[rows], weights),
                [chunk, *weights],
                [cotangent[rows]],
            )
            slopes.append(slope)
            sums = [total + part for total, part in zip(sums, parts, strict=True)]
            done = [slope, *sums]
        return mx.concatenate(slopes), *(
            total.astype(w.dtype) for total, w in zip(sums, weights, strict=True)
        )

    return with_gradient(forward, gradient)(x, *(array for _, array in trained))


def _states_and_targets(
    model: Model, batch: DeviceBatch, index: mx.array | None
) -> tuple[mx.array, mx.array]:
    """States (N, O) of the backbone and targets (N,), at the index or of all tokens."""
    states = model.backbone(batch.tokens, batch.segment_ids)  # (B, T, O)
    x = states.reshape(-1, states.shape[-1])
    targets = batch.targets.reshape(-1)
    if index is None:
        return x, targets
    return mx.take(x, index, axis=0), targets[index]


def _at_index(values: mx.array, index: mx.array | None, shape: Sequence[int]) -> mx.array:
    """(N,) -> (B, T), 0 where the index names nothing."""
    if index is not None:
        values = mx.zeros(math.prod(shape), values.dtype).at[index].add(values)
    return values.reshape(shape)


def _slices(count: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]


def _trained(layers: Mapping[str, nn.Module]) -> dict[str, Tree]:
    return {name: layer.trainable_parameters() for name, layer in layers.items()}


@contextmanager
def _replaced(layers: Mapping[str, nn.Module], weights: Mapping[str, Tree]) -> Iterator[None]:
    """Inside, the layers have these trainable weights."""
    before = _trained(layers)
    try:
        for name, new in weights.items():
            layers[name].update(new)
        yield
    finally:
        for name, old in before.items():
            layers[name].update(old)
