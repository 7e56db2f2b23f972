"""Convolutions that stay within a document, and layers that fuse their outputs (used by `cnn_hybrid`)."""

import mlx.core as mx
import mlx.nn as nn

from mlxlab.ops.activations import gelu
from mlxlab.ops.dropout import Dropout


def convolve(conv: nn.Conv1d, x: mx.array, segment_ids: mx.array, dilation: int = 1) -> mx.array:
    """ "Same" convolution (B, T, D) -> (B, T, F) that reads padding and other documents as zeros.

    Even kernels keep the length too: (k - 1) // 2 positions before and k // 2 after. Computed tap by tap, since each
    tap crosses document boundaries elsewhere; that costs as much as `conv(x)`.
    """
    kernel_size = conv.weight.shape[1]  # weight (F, k, D)
    y = conv.bias
    for tap in range(kernel_size):
        offset = (tap - (kernel_size - 1) // 2) * dilation
        same_document = (_shift(segment_ids, offset) == segment_ids) & (segment_ids > 0)  # (B, T)
        y = y + (_shift(x, offset) * same_document[..., None].astype(x.dtype)) @ conv.weight[:, tap].T
    return y


def _shift(x: mx.array, offset: int) -> mx.array:
    """Position t gets the value of position t + offset; zeros beyond the ends."""
    length = x.shape[1]
    offset = max(-length, min(length, offset))
    padded = mx.pad(x, [(0, 0), (max(-offset, 0), max(offset, 0))] + [(0, 0)] * (x.ndim - 2))
    return padded[:, max(offset, 0) :][:, :length]


def document_means(x: mx.array, segment_ids: mx.array) -> mx.array:
    """The mean over each position's document, without padding: (B, N, T, F) -> (B, N, T, F).

    With a boolean segment_ids there is one document per row: (B, N, 1, F).
    """
    if segment_ids.dtype == mx.bool_:
        weights = segment_ids[:, None].astype(x.dtype)  # (B, 1, T)
    else:
        weights = ((segment_ids[:, :, None] == segment_ids[:, None, :]) & (segment_ids > 0)[:, None]).astype(
            x.dtype
        )  # (B, T, T)
    weights = weights / mx.maximum(weights.sum(axis=-1, keepdims=True), 1)
    return weights[:, None] @ x


class Branch(nn.Module):
    """Convolution with ReLU (Kim 2014): (B, T, D) -> (B, T, F)."""

    def __init__(self, input_size: int, num_filters: int, kernel_size: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv1d(input_size, num_filters, kernel_size)
        self.dropout = Dropout(dropout)

    def __call__(self, x: mx.array, segment_ids: mx.array) -> mx.array:
        return self.dropout(nn.relu(convolve(self.conv, x, segment_ids)))  # (B, T, F)


class DilatedBranch(nn.Module):
    """The mean of convolutions of kernel size 3 at several dilations: (B, T, D) -> (B, T, F)."""

    def __init__(self, input_size: int, num_filters: int, dilations: list[int], dropout: float) -> None:
        super().__init__()
        self.dilations = dilations
        self.convs = [nn.Conv1d(input_size, num_filters, 3) for _ in dilations]
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(num_filters)

    def __call__(self, x: mx.array, segment_ids: mx.array) -> mx.array:
        outputs = [gelu(convolve(conv, x, segment_ids, d)) for conv, d in zip(self.convs, self.dilations, strict=True)]
        return self.norm(self.dropout(mx.stack(outputs).mean(axis=0)))


class AttentionFusion(nn.Module):
    """Weighted sum of N branches, each scored by its mean over the document: N x (B, T, F) -> (B, T, F)."""

    def __init__(self, num_filters: int) -> None:
        super().__init__()
        self.score_hidden = nn.Linear(num_filters, max(1, num_filters // 2))
        self.score = nn.Linear(max(1, num_filters // 2), 1)
        self.out = nn.Linear(num_filters, num_filters)
        self.norm = nn.LayerNorm(num_filters)

    def __call__(self, branches: list[mx.array], segment_ids: mx.array) -> mx.array:
        x = mx.stack(branches, axis=1)  # (B, N, T, F)
        # The mean of a linear layer is the linear layer of the mean: averaging its output is half the work.
        means = document_means(self.score_hidden(x), segment_ids)
        weights = mx.softmax(self.score(mx.tanh(means)), axis=1)  # (B, N, T or 1, 1)
        return self.norm(self.out((x * weights).sum(axis=1)))


class ConcatFusion(nn.Module):
    """A linear layer over N concatenated branches: N x (B, T, F) -> (B, T, F)."""

    def __init__(self, count: int, num_filters: int) -> None:
        super().__init__()
        self.out = nn.Linear(count * num_filters, num_filters)
        self.norm = nn.LayerNorm(num_filters)

    def __call__(self, branches: list[mx.array], segment_ids: mx.array) -> mx.array:
        return self.norm(self.out(mx.concatenate(branches, axis=-1)))


class Highway(nn.Module):
    """Highway layer (Srivastava et al. 2015): g relu(Wx) + (1 - g) x, with g = sigmoid(Vx)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.gate = nn.Linear(size, size)
        self.transform = nn.Linear(size, size)

    def __call__(self, x: mx.array) -> mx.array:
        gate = mx.sigmoid(self.gate(x))
        return gate * nn.relu(self.transform(x)) + (1 - gate) * x
