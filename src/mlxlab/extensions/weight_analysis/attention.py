"""Entropy of attention weights, recomputed from queries and keys: layers do not keep them."""

import math
from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxlab.backend.ops.attention import Mask, SegmentMask, causal_mask
from mlxlab.models.layers import Attention, LayerCache

# Positions of a row, evenly spaced: the weights of all would need (T, T) numbers per head.
MAX_QUERIES = 64


def attention_entropy(
    model: nn.Module, tokens: mx.array, segment_ids: mx.array
) -> list[list[float]]:
    """Mean entropy in nats of the attention weights of each layer and head, on rows (B, T).

    Padding does not count. It runs in evaluation mode, which draws no random numbers; nothing of
    the model is changed afterwards. `[]` for a model without `Attention`.
    """
    was_training = model.training
    model.eval()
    entropies: list[mx.array] = []  # (H,) each, in the order in which the layers are called

    def record(attention: Attention, x: mx.array, mask: Mask) -> None:
        entropies.append(_mean_entropy(attention, x, mask, segment_ids))

    attentions = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.items()
        if isinstance(child, Attention)
    ]
    for parent, name, child in attentions:
        parent[name] = _RecordedAttention(child, record)
    try:
        model(tokens, segment_ids)  # It is lazy: only what the entropies need is computed.
        mx.eval(entropies)
    finally:
        for parent, name, child in attentions:
            parent[name] = child
        model.train(was_training)
    return [np.array(each).tolist() for each in entropies]


def attention_metrics(entropies: list[list[float]]) -> dict[str, float]:
    """The mean over the heads of each layer, and the minimum of all heads."""
    if not entropies:
        return {}
    metrics = {"analysis/attention_entropy/min_head": min(map(min, entropies))}
    for layer, heads in enumerate(entropies):
        metrics[f"analysis/attention_entropy/layer_{layer}"] = float(np.mean(heads))
    return metrics


class _RecordedAttention(nn.Module):
    """Replaces an `Attention` during one pass."""

    def __init__(
        self, attention: Attention, record: Callable[[Attention, mx.array, Mask], None]
    ) -> None:
        super().__init__()
        self.attention = attention
        self.record = record

    def __call__(self, x: mx.array, mask: Mask, layer_cache: LayerCache | None = None) -> mx.array:
        self.record(self.attention, x, mask)
        return self.attention(x, mask, layer_cache)


def _mean_entropy(attention: Attention, x: mx.array, mask: Mask, segment_ids: mx.array) -> mx.array:
    """(H,) over sampled positions without padding, of states (B, T, D)."""
    length = segment_ids.shape[1]
    positions = np.linspace(0, length - 1, min(length, MAX_QUERIES)).round()
    queries = mx.array(positions.astype(np.int32))
    real = (segment_ids[:, queries] > 0).astype(mx.float32)[:, None]  # (B, 1, Q)
    q, k, _ = attention.project(x)
    k = mx.repeat(k, q.shape[1] // k.shape[1], axis=1)
    if isinstance(mask, SegmentMask):
        mask = mask.bias
    if isinstance(mask, str):
        mask = causal_mask(length, length, q.dtype)
    bias = mask if mask.shape[-2] == 1 else mask[..., queries, :]
    scores = (q[:, :, queries] / math.sqrt(attention.head_dim)) @ k.swapaxes(-1, -2)
    scores = (scores + bias).astype(mx.float32)  # (B, H, Q, T)
    logs = scores - mx.logsumexp(scores, axis=-1, keepdims=True)
    weights = mx.exp(logs)
    entropy = -mx.where(weights > 0, weights * logs, 0.0).sum(axis=-1)  # (B, H, Q)
    return (entropy * real).sum(axis=(0, 2)) / mx.maximum(real.sum(), 1)
