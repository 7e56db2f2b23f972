"""Convolutions over states that stay within a document, and what fuses them (the parts of `cnn_hybrid`)."""

import mlx.core as mx
import mlx.nn as nn

from mlxlab.ops.activations import gelu
from mlxlab.ops.dropout import Dropout


def convolve(conv: nn.Conv1d, x: mx.array, mask: mx.array, dilation: int = 1) -> mx.array:
    """(B, T, D) -> (B, T, F): windows around every place, which see zeros for padding and other documents.

    As many windows as places, for even kernels too: (k - 1) // 2 places before and k // 2 after. Tap by tap, since each
    has another edge to respect; that costs what `conv(x)` does.
    """
    kernel = conv.weight.shape[1]  # (F, kernel, D)
    y = conv.bias
    for tap in range(kernel):
        offset = (tap - (kernel - 1) // 2) * dilation
        seen = (_shift(mask, offset) == mask) & (mask > 0)  # (B, T)
        y = y + (_shift(x, offset) * seen[..., None].astype(x.dtype)) @ conv.weight[:, tap].T
    return y


def _shift(x: mx.array, offset: int) -> mx.array:
    """Place t holds what stood at t + offset; zeros from beyond the ends."""
    length = x.shape[1]
    offset = max(-length, min(length, offset))
    padded = mx.pad(x, [(0, 0), (max(-offset, 0), max(offset, 0))] + [(0, 0)] * (x.ndim - 2))
    return padded[:, max(offset, 0) :][:, :length]


def document_means(x: mx.array, mask: mx.array) -> mx.array:
    """(B, N, T, F) -> the mean over the real places of each place's document, (B, N, T, F).

    With a boolean mask there is one document a row: (B, N, 1, F).
    """
    if mask.dtype == mx.bool_:
        weights = mask[:, None].astype(x.dtype)  # (B, 1, T)
    else:
        weights = ((mask[:, :, None] == mask[:, None, :]) & (mask > 0)[:, None]).astype(x.dtype)  # (B, T, T)
    weights = weights / mx.maximum(weights.sum(axis=-1, keepdims=True), 1)
    return weights[:, None] @ x


class Branch(nn.Module):
    """Windows of `kernel` places (Kim 2014)."""

    def __init__(self, width: int, filters: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, filters, kernel)
        self.dropout = Dropout(dropout)

    def __call__(self, x: mx.array, mask: mx.array) -> mx.array:
        return self.dropout(nn.relu(convolve(self.conv, x, mask)))  # (B, T, F)


class DilatedBranch(nn.Module):
    """Kernel 3 at several dilations, averaged."""

    def __init__(self, width: int, filters: int, dilations: list[int], dropout: float) -> None:
        super().__init__()
        self.dilations = dilations
        self.convs = [nn.Conv1d(width, filters, 3) for _ in dilations]
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(filters)

    def __call__(self, x: mx.array, mask: mx.array) -> mx.array:
        parts = [gelu(convolve(conv, x, mask, d)) for conv, d in zip(self.convs, self.dilations, strict=True)]
        return self.norm(self.dropout(mx.stack(parts).mean(axis=0)))


class AttentionFusion(nn.Module):
    """Weighs each branch by a score of its mean over the real places."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.score_hidden = nn.Linear(filters, max(1, filters // 2))
        self.score = nn.Linear(max(1, filters // 2), 1)
        self.out = nn.Linear(filters, filters)
        self.norm = nn.LayerNorm(filters)

    def __call__(self, branches: list[mx.array], mask: mx.array) -> mx.array:
        x = mx.stack(branches, axis=1)  # (B, N, T, F)
        # The mean of a linear layer is the linear layer of the mean, and has half the numbers.
        means = document_means(self.score_hidden(x), mask)
        weights = mx.softmax(self.score(mx.tanh(means)), axis=1)  # (B, N, T or 1, 1)
        return self.norm(self.out((x * weights).sum(axis=1)))


class ConcatFusion(nn.Module):
    """A linear layer over all branches."""

    def __init__(self, count: int, filters: int) -> None:
        super().__init__()
        self.out = nn.Linear(count * filters, filters)
        self.norm = nn.LayerNorm(filters)

    def __call__(self, branches: list[mx.array], mask: mx.array) -> mx.array:
        return self.norm(self.out(mx.concatenate(branches, axis=-1)))


class Highway(nn.Module):
    """g relu(Wx) + (1 - g) x (Srivastava et al. 2015)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, width)
        self.transform = nn.Linear(width, width)

    def __call__(self, x: mx.array) -> mx.array:
        gate = mx.sigmoid(self.gate(x))
        return gate * nn.relu(self.transform(x)) + (1 - gate) * x
