"""Entropy of attention weights, recomputed from queries and keys: the layers do not keep their weights."""

import math

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxlab.models.layers import Attention, LayerCache
from mlxlab.ops.attention import Mask, SegmentMask, causal_mask

MAX_QUERIES = (
    64  # positions of a row, evenly spaced: the weights of all would need (T, T) numbers per head
)


def attention_entropy(
    model: nn.Module, tokens: mx.array, segment_ids: mx.array
) -> list[list[float]]:
    """Mean entropy in nats of the attention weights of each layer, head by head, on rows (B, T) without padding.

    In evaluation mode, which draws no random numbers; nothing of the model is changed afterwards. `[]` for a model
    without `Attention`.
    """
    was_training = model.training
    recorder = _Recorder(segment_ids)
    model.eval()
    wrapped = _wrap(model, recorder)
    try:
        model(tokens, segment_ids)  # lazy: only what the entropies need is computed
        mx.eval(recorder.entropies)
    finally:
        for parent, name, attention in wrapped:
            parent[name] = attention
        model.train(was_training)
    return [np.array(entropies).tolist() for entropies in recorder.entropies]


class _Recorder:
    """Entropies of the layers, in the order in which they are called."""

    def __init__(self, segment_ids: mx.array) -> None:
        length = segment_ids.shape[1]
        count = min(length, MAX_QUERIES)
        self.queries = mx.array([round(i * (length - 1) / max(count - 1, 1)) for i in range(count)])
        self.real = (segment_ids[:, self.queries] > 0).astype(mx.float32)[:, None]  # (B, 1, Q)
        self.entropies: list[mx.array] = []  # (H,) each

    def record(self, attention: Attention, x: mx.array, mask: Mask) -> None:
        q, k, _ = attention.project(x)
        k = mx.repeat(k, q.shape[1] // k.shape[1], axis=1)
        length = q.shape[2]
        if isinstance(mask, SegmentMask):
            mask = mask.bias
        if isinstance(mask, str):
            mask = causal_mask(length, length, q.dtype)
        bias = mask if mask.shape[-2] == 1 else mask[..., self.queries, :]
        scores = (q[:, :, self.queries] / math.sqrt(attention.head_dim)) @ k.swapaxes(-1, -2) + bias
        scores = scores.astype(mx.float32)  # (B, H, Q, T)
        logs = scores - mx.logsumexp(scores, axis=-1, keepdims=True)
        weights = mx.exp(logs)
        entropy = -mx.where(weights > 0, weights * logs, 0.0).sum(axis=-1)  # (B, H, Q)
        self.entropies.append(
            (entropy * self.real).sum(axis=(0, 2)) / mx.maximum(self.real.sum(), 1)
        )


class _RecordedAttention(nn.Module):
    """Takes the place of an `Attention` during one pass."""

    def __init__(self, attention: Attention, recorder: _Recorder) -> None:
        super().__init__()
        self.attention, self.recorder = attention, recorder

    def __call__(self, x: mx.array, mask: Mask, layer_cache: LayerCache | None = None) -> mx.array:
        self.recorder.record(self.attention, x, mask)
        return self.attention(x, mask, layer_cache)


def _wrap(model: nn.Module, recorder: _Recorder) -> list[tuple[nn.Module, str, Attention]]:
    """Replaces every `Attention` in its parent module; returns (parent, name, attention)."""
    attentions = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.items()
        if isinstance(child, Attention)
    ]
    for parent, name, child in attentions:
        parent[name] = _RecordedAttention(child, recorder)
    return attentions
