"""The head of a language model by chunks of tokens, so that the logits of all tokens, (B, T, V), are never held."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, Protocol, TypeGuard, cast, runtime_checkable

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from mlxlab.constraints import Size
from mlxlab.models.model import CausalHead, MaskedHead, Model
from mlxlab.ops.cross_entropy import cross_entropy
from mlxlab.ops.custom_gradient import Arrays, with_gradient
from mlxlab.ops.dropout import Dropout
from mlxlab.training.device_batch import DeviceBatch
from mlxlab.training.losses.loss import Loss, LossTerms
from mlxlab.training.optim.optimizers import Tree

MAX_BYTES = 1 << 30  # of float32 logits; `auto` computes more of them in chunks ...
CHUNK_BYTES = 1 << 28  # ... of this size

HeadChunk = Size | Literal["auto"] | None  # tokens of a chunk; None is all


@runtime_checkable
class LogitLoss(Protocol):
    """A loss that is a function of logits and targets alone, target by target."""

    def of_logits(self, logits: mx.array, targets: mx.array) -> mx.array:
        """(..., V), (...) -> (...), float32."""


class ChunkedLoss:
    """A loss whose logits are computed in chunks, and again for the gradient, where it and the model allow that."""

    def __init__(self, loss: Loss, chunk: HeadChunk) -> None:
        self.loss, self.chunk = loss, chunk

    def __call__(self, model: nn.Module, batch: DeviceBatch) -> LossTerms:
        size = chunk_size(model, batch, self.chunk)
        if size is None or not isinstance(self.loss, LogitLoss) or _drops_out(cast(Model, model)):
            return self.loss(model, batch)
        return LossTerms(_chunked_values(cast(Model, model), batch, self.loss, size), {})


def chunk_size(model: nn.Module, batch: DeviceBatch, chunk: HeadChunk) -> int | None:
    """Tokens of a chunk; None if the logits are computed at once: they fit, or the model is no language model."""
    if chunk is None or not _has_separate_head(model):
        return None
    tokens, vocab_size = batch.tokens.size, model.backbone.embedding.weight.shape[0]
    if chunk == "auto":
        chunk = tokens if 4 * tokens * vocab_size <= MAX_BYTES else max(CHUNK_BYTES // (4 * vocab_size), 1)
    return chunk if chunk < tokens else None


def token_losses(model: nn.Module, batch: DeviceBatch, *, predict: bool) -> tuple[mx.array, mx.array]:
    """Cross-entropy, and if `predict` the most probable token, of each target: (B, T) twice. Has no gradient."""
    size = chunk_size(model, batch, "auto")
    if size is None:
        logits = model(batch.tokens, batch.segment_ids).astype(mx.float32)
        return cross_entropy(logits, batch.targets), logits.argmax(axis=-1)
    model = cast(Model, model)
    x, targets = _flat_states(model, batch), batch.targets.reshape(-1)
    losses, predictions = list[mx.array](), list[mx.array]()
    for rows in _slices(len(x), size):
        logits = model.logits(x[rows]).astype(mx.float32)
        losses.append(cross_entropy(logits, targets[rows]))
        predictions.append(logits.argmax(axis=-1) if predict else targets[rows])
        mx.eval(losses[-1], predictions[-1])  # before the logits of the next chunk are computed
    shape = batch.targets.shape
    return mx.concatenate(losses).reshape(shape), mx.concatenate(predictions).reshape(shape)


def _has_separate_head(model: nn.Module) -> TypeGuard[Model]:
    if not isinstance(model, Model):
        return False
    return isinstance(model.head, MaskedHead) or (isinstance(model.head, CausalHead) and not model.head.is_identity)


def _drops_out(model: Model) -> bool:
    """True if the head draws random numbers, which would be others when it is computed again."""
    modules = [*model.head.modules(), *model.backbone.embedding.modules()]
    return any(isinstance(module, Dropout) and module.p > 0 and module.training for module in modules)


def _chunked_values(model: Model, batch: DeviceBatch, loss: LogitLoss, size: int) -> mx.array:
    """The loss of every target, (B, T). Each chunk waits for the one before: MLX would hold several at once."""
    layers = {"head": model.head, "embedding": model.backbone.embedding}
    trained = cast(list[tuple[str, mx.array]], tree_flatten(_trained(layers)))
    targets = batch.targets.reshape(-1)

    def values(x: mx.array, targets: mx.array, weights: Sequence[mx.array]) -> mx.array:
        new = [(name, weight) for (name, _), weight in zip(trained, weights, strict=True)]
        with _replaced(layers, tree_unflatten(new) if new else {}):
            return loss.of_logits(model.logits(x), targets)

    def forward(x: mx.array, *weights: mx.array) -> Arrays:
        out = list[mx.array]()
        for rows in _slices(len(x), size):
            (chunk,) = mx.depends([x[rows]], out[-1:] or [x])
            out.append(values(chunk, targets[rows], weights))
        return (mx.concatenate(out),)

    def gradient(inputs: Arrays, cotangent: mx.array, outputs: Arrays) -> Arrays:
        x, *weights = inputs
        slopes, done = list[mx.array](), list(outputs)
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
        return mx.concatenate(slopes), *(total.astype(w.dtype) for total, w in zip(sums, weights, strict=True))

    x = _flat_states(model, batch)
    return with_gradient(forward, gradient)(x, *(array for _, array in trained)).reshape(batch.targets.shape)


def _flat_states(model: Model, batch: DeviceBatch) -> mx.array:
    states = model.backbone(batch.tokens, batch.segment_ids)  # (B, T, O)
    return states.reshape(-1, states.shape[-1])


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
