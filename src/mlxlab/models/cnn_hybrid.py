"""A BERT encoder with parallel convolutions over its states (Kim 2014), fused and joined to its pooled state."""

from collections.abc import Sequence
from typing import Annotated, Literal

import mlx.core as mx
import mlx.nn as nn

from mlxlab.backend.ops.activations import gelu
from mlxlab.backend.ops.attention import MASK_VALUE
from mlxlab.backend.ops.dropout import Dropout
from mlxlab.backend.ops.layers import LayerNorm, Linear
from mlxlab.models.bert import Bert
from mlxlab.schema.constraints import Count, MinLen, Positive, Share, Size

POOLED_SIZE = 512


class CnnHybrid(nn.Module):
    """An encoder: tokens (B, T) -> BERT states and fused convolution features (B, T, D + F). `pool` -> (B, 512).

    Args:
        hidden_size: dimensions of the encoder's states.
        num_layers: blocks of attention and feed-forward.
        num_heads: attention heads; must divide hidden_size.
        intermediate_size: hidden dimensions of each feed-forward layer.
        max_position_embeddings: longest sequence, in tokens, for learned positions.
        dropout: fraction of the encoder's activations dropped in training.
        position_embedding: learned, or rope for rotary positions.
        rope_theta: base of the rotary frequencies.
        mlp_type: an activation, or a gated feed-forward layer (geglu, swiglu).
        pre_norm: normalize before each sublayer instead of after it.
        kernel_sizes: widths of the convolutions, one branch each.
        num_filters: F, output channels of every branch.
        dilations: dilations of an extra branch of kernel size 3; an empty list leaves that branch out.
        branch_dropout: fraction of the branches' activations dropped in training.
        fusion: attention weighs the branches against each other; concat joins them by a linear layer.
        highway: two highway layers after the fusion.
        norm_eps: added to the variance in the encoder's norms.
        head_dim: dimensions of a head; null is hidden_size / num_heads.
        gated_layers: numbers of the encoder's blocks that are mixed with their input by a learned gate.
    """

    causal = False
    separates_documents = True
    pooled_size = POOLED_SIZE
    classifier_hidden_size = 256

    def __init__(
        self,
        hidden_size: Size = 128,
        num_layers: Size = 6,
        num_heads: Size = 4,
        intermediate_size: Size = 512,
        max_position_embeddings: Size = 512,
        dropout: Share = 0.1,
        position_embedding: Literal["learned", "rope"] = "learned",
        rope_theta: Positive = 10000.0,
        mlp_type: Literal["gelu", "relu", "silu", "geglu", "swiglu"] = "gelu",
        pre_norm: bool = False,
        kernel_sizes: Annotated[Sequence[Size], MinLen(1)] = (2, 3, 4, 5),
        num_filters: Size = 128,
        dilations: Sequence[Size] = (1, 2, 4),
        branch_dropout: Share = 0.5,
        fusion: Literal["attention", "concat"] = "attention",
        highway: bool = True,
        norm_eps: Positive = 1e-12,
        gated_layers: Sequence[Count] = (),
        head_dim: Size | None = None,
        *,
        vocab_size: int,
        pair_separator: int | None = None,
    ) -> None:
        super().__init__()
        dims = (hidden_size, num_layers, num_heads, intermediate_size, max_position_embeddings)
        options = (dropout, position_embedding, rope_theta, mlp_type, pre_norm)
        self.encoder = Bert(
            *dims,
            *options,
            norm_eps=norm_eps,
            gated_layers=gated_layers,
            head_dim=head_dim,
            vocab_size=vocab_size,
            pair_separator=pair_separator,
        )
        self.hidden_size = hidden_size
        self.output_size = hidden_size + num_filters
        self.max_position_embeddings = max_position_embeddings
        self.position_limit = self.encoder.position_limit
        # Lists, not tuples: MLX does not look for parameters inside tuples.
        self.branches = [
            Branch(hidden_size, num_filters, size, branch_dropout) for size in kernel_sizes
        ]
        if dilations:
            self.dilated = DilatedBranch(hidden_size, num_filters, list(dilations), branch_dropout)
        count = len(kernel_sizes) + bool(dilations)
        if fusion == "attention":
            self.fusion: nn.Module = AttentionFusion(num_filters)
        else:
            self.fusion = ConcatFusion(count, num_filters)
        self.highway = []
        if highway:
            self.highway = [Highway(num_filters) for _ in range(2)]
        self.joined = Linear(self.output_size, POOLED_SIZE)
        self.joined_norm = LayerNorm(POOLED_SIZE)

    @property
    def embedding(self) -> nn.Embedding:
        return self.encoder.embedding

    def __call__(self, tokens: mx.array, segment_ids: mx.array) -> mx.array:
        states = self.encoder(tokens, segment_ids)  # (B, T, D)
        branches = [branch(states, segment_ids) for branch in self.branches]
        if "dilated" in self:
            branches.append(self.dilated(states, segment_ids))
        x = self.fusion(branches, segment_ids)  # (B, T, F)
        for layer in self.highway:
            x = layer(x)
        return mx.concatenate([states, x], axis=-1)

    def pool(self, x: mx.array, segment_ids: mx.array) -> mx.array:
        """BERT's pooled state joined with the features' maximum over real tokens: (B, T, D + F) -> (B, 512)."""
        states, features = mx.split(x, [self.hidden_size], axis=-1)
        # Masked after fusion and highway, whose biases make padding non-zero again.
        maxima = mx.where((segment_ids > 0)[..., None], features, MASK_VALUE).max(axis=1)  # (B, F)
        both = mx.concatenate([self.encoder.pool(states, segment_ids), maxima], axis=-1)
        return nn.relu(self.joined_norm(self.joined(both)))  # the classifier begins with dropout

    def remove_pooler(self) -> None:
        self.encoder.remove_pooler()
        self.pop("joined")
        self.pop("joined_norm")


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

    def __init__(
        self, input_size: int, num_filters: int, dilations: list[int], dropout: float
    ) -> None:
        super().__init__()
        self.dilations = dilations
        self.convs = [nn.Conv1d(input_size, num_filters, 3) for _ in dilations]
        self.dropout = Dropout(dropout)
        self.norm = LayerNorm(num_filters)

    def __call__(self, x: mx.array, segment_ids: mx.array) -> mx.array:
        outputs = [
            gelu(convolve(conv, x, segment_ids, d))
            for conv, d in zip(self.convs, self.dilations, strict=True)
        ]
        return self.norm(self.dropout(mx.stack(outputs).mean(axis=0)))


class AttentionFusion(nn.Module):
    """Weighted sum of N branches, each scored by its mean over the document: N x (B, T, F) -> (B, T, F)."""

    def __init__(self, num_filters: int) -> None:
        super().__init__()
        self.score_hidden = Linear(num_filters, max(1, num_filters // 2))
        self.score = Linear(max(1, num_filters // 2), 1)
        self.out = Linear(num_filters, num_filters)
        self.norm = LayerNorm(num_filters)

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
        self.out = Linear(count * num_filters, num_filters)
        self.norm = LayerNorm(num_filters)

    def __call__(self, branches: list[mx.array], segment_ids: mx.array) -> mx.array:
        return self.norm(self.out(mx.concatenate(branches, axis=-1)))


class Highway(nn.Module):
    """Highway layer (Srivastava et al. 2015): g relu(Wx) + (1 - g) x, with g = sigmoid(Vx)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.gate = Linear(size, size)
        self.transform = Linear(size, size)

    def __call__(self, x: mx.array) -> mx.array:
        gate = mx.sigmoid(self.gate(x))
        return gate * nn.relu(self.transform(x)) + (1 - gate) * x


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
        shifted = _shift(x, offset) * same_document[..., None].astype(x.dtype)
        y = y + shifted @ conv.weight[:, tap].T
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
        same_document = segment_ids[:, None]  # (B, 1, T)
    else:
        same_document = (segment_ids[:, :, None] == segment_ids[:, None, :]) & (segment_ids > 0)[
            :, None
        ]  # (B, T, T)
    weights = same_document.astype(x.dtype)
    weights = weights / mx.maximum(weights.sum(axis=-1, keepdims=True), 1)
    return weights[:, None] @ x
