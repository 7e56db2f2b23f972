"""BERT (Devlin et al. 2018): a bidirectional encoder, by its options also ModernBERT (Warner et al. 2024)."""

from collections.abc import Sequence
from typing import Literal

import mlx.core as mx
import mlx.nn as nn

from mlxlab.backend.ops.attention import Mask
from mlxlab.backend.ops.dropout import Dropout
from mlxlab.backend.ops.layers import Embedding, LayerNorm, Linear
from mlxlab.errors import ConfigError
from mlxlab.models.layers import Attention, FeedForward, attention_mask, follows, position_ids
from mlxlab.schema.constraints import Count, Positive, Share, Size


class Bert(nn.Module):
    """An encoder: tokens (B, T) -> states (B, T, D), each position attending to its whole document.

    With a `pair_separator`, the id of the token between two texts, the tokens of the second text have type embedding 1.
    The defaults are those of the published model: post-norm, learned positions, GELU by the error function.

    Args:
        hidden_size: dimensions of a state.
        num_layers: blocks of attention and feed-forward.
        num_heads: attention heads; must divide hidden_size.
        intermediate_size: hidden dimensions of each feed-forward layer.
        max_position_embeddings: longest sequence, in tokens, for learned positions.
        dropout: fraction of activations dropped in training.
        position_embedding: learned, or rope for rotary positions.
        rope_theta: base of the rotary frequencies.
        mlp_type: an activation, or a gated feed-forward layer (geglu, swiglu).
        pre_norm: normalize before each sublayer instead of after it.
        norm_eps: added to the variance in every norm.
        head_dim: dimensions of a head; null is hidden_size / num_heads.
        gated_layers: numbers of blocks that are mixed with their input by a learned gate g: x + g (block(x) - x).
        pooling: what a classifier reads: the first token's state through a dense layer and tanh (dense), that state
            itself (first), or the mean of the states of a row (mean).
        num_token_types: 2 for types of both texts of a pair, 1 for one that is the same everywhere, or 0 for none.
        bias: whether linear layers and norms have biases; a pooler and the output layer of a head always have one.
        first_attention_norm: whether the first block of a model with pre_norm normalizes the input of its attention,
            which the norm of the embeddings has done.
        global_attention_every: n for attention to the whole document in blocks 0, n, 2n and so on; in the others a
            position attends to those near it.
        attention_window: how far away they may be, in tokens on each side.
        local_rope_theta: base of the rotary frequencies in those blocks; null is rope_theta.

    Raises:
        ConfigError: first_attention_norm=false without pre_norm, or as `Attention`.
    """

    causal = False
    separates_documents = True
    classifier_hidden_size = 0

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
        norm_eps: Positive = 1e-12,
        gated_layers: Sequence[Count] = (),
        head_dim: Size | None = None,
        pooling: Literal["dense", "first", "mean"] = "dense",
        num_token_types: Literal[0, 1, 2] = 2,
        bias: bool = True,
        first_attention_norm: bool = True,
        global_attention_every: Size = 1,
        attention_window: Count = 64,
        local_rope_theta: Positive | None = None,
        *,
        vocab_size: int,
        pair_separator: int | None = None,
    ) -> None:
        super().__init__()
        if not (first_attention_norm or pre_norm):
            raise ConfigError("first_attention_norm=false: expected pre_norm=true")
        self.pair_separator = pair_separator if num_token_types == 2 else None
        self.norm_eps = norm_eps
        self.bias = bias
        self.global_attention_every = global_attention_every
        self.attention_window = attention_window
        self.hidden_size = self.output_size = self.pooled_size = hidden_size
        self.max_position_embeddings = max_position_embeddings
        self.position_limit: int | None = None
        global_theta: float | None = None
        local_theta: float | None = None
        if position_embedding == "learned":
            self.position_limit = max_position_embeddings
        else:
            global_theta = rope_theta
            local_theta = local_rope_theta or rope_theta
        self.embedding = Embedding(vocab_size, hidden_size)
        if num_token_types:
            self.type_embedding = Embedding(num_token_types, hidden_size)
        if self.position_limit is not None:
            self.position_embedding = Embedding(self.position_limit, hidden_size)
        self.embedding_norm = LayerNorm(hidden_size, eps=norm_eps, bias=bias)
        self.dropout = Dropout(dropout)
        self.layers = []
        for layer in range(num_layers):
            theta = local_theta
            if self._is_global(layer):
                theta = global_theta
            attention = Attention(hidden_size, num_heads, num_heads, bias, dropout, theta, head_dim)
            feed_forward = FeedForward(mlp_type, hidden_size, intermediate_size, bias=bias)
            norms: list[nn.Module] = [
                LayerNorm(hidden_size, eps=norm_eps, bias=bias) for _ in range(2)
            ]
            if layer == 0 and not first_attention_norm:
                norms[0] = nn.Identity()
            gated = layer in gated_layers
            self.layers.append(
                BertBlock(attention, feed_forward, norms, dropout, pre_norm=pre_norm, gated=gated)
            )
        if pre_norm:
            self.last_norm = LayerNorm(hidden_size, eps=norm_eps, bias=bias)
        self.pooling = pooling
        if pooling == "dense":
            self.pooler = Linear(hidden_size, hidden_size)

    def __call__(self, tokens: mx.array, segment_ids: mx.array) -> mx.array:
        x = self.embedding(tokens)
        if "type_embedding" in self:
            x = x + self._type_embeddings(tokens, segment_ids)
        if self.position_limit is not None:
            x = x + self.position_embedding(position_ids(segment_ids, self.position_limit))
        x = self.dropout(self.embedding_norm(x))  # (B, T, D)
        mask = attention_mask(segment_ids, causal=False, dtype=x.dtype)
        local_mask = mask
        if self.global_attention_every > 1:
            local_mask = attention_mask(
                segment_ids, causal=False, dtype=x.dtype, window=self.attention_window
            )
        for number, layer in enumerate(self.layers):
            layer_mask = local_mask
            if self._is_global(number):
                layer_mask = mask
            x = layer(x, layer_mask)
        if "last_norm" in self:
            x = self.last_norm(x)
        return x

    def pool(self, x: mx.array, segment_ids: mx.array) -> mx.array:
        """One state per row, by `pooling`, from its real tokens: (B, T, D) -> (B, D)."""
        if self.pooling == "mean":
            weights = (segment_ids > 0).astype(x.dtype)[..., None]  # (B, T, 1)
            return (x * weights).sum(axis=1) / mx.maximum(weights.sum(axis=1), 1)
        first = mx.argmax(segment_ids > 0, axis=1)  # (B,)
        state = mx.take_along_axis(x, first[:, None, None], axis=1)[:, 0]
        if "pooler" in self:
            state = mx.tanh(self.pooler(state))
        return state

    def remove_pooler(self) -> None:
        self.pop("pooler", None)

    def _is_global(self, layer: int) -> bool:
        return layer % self.global_attention_every == 0

    def _type_embeddings(self, tokens: mx.array, segment_ids: mx.array) -> mx.array:
        """The embedding of each token's type (B, T, D), or (D,) if all are of the first: one text per document."""
        weight = self.type_embedding.weight
        if self.pair_separator is None:
            return weight[0]
        in_second = follows(self.pair_separator, tokens, segment_ids)  # (B, T)
        return mx.where(in_second[..., None], weight[1], weight[0])


class BertBlock(nn.Module):
    """Attention and feed-forward with residual connections: (B, T, D) -> (B, T, D)."""

    def __init__(
        self,
        attention: Attention,
        feed_forward: FeedForward,
        norms: list[nn.Module],
        dropout: float,
        *,
        pre_norm: bool,
        gated: bool = False,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.attention_norm = norms[0]
        self.feed_forward = feed_forward
        self.feed_forward_norm = norms[1]
        self.dropout = Dropout(dropout)
        self.pre_norm = pre_norm
        if gated:
            self.gate = mx.ones(1)

    def __call__(self, x: mx.array, mask: Mask) -> mx.array:
        out = self._transform(x, mask)
        if "gate" in self:
            out = x + self.gate * (out - x)
        return out

    def _transform(self, x: mx.array, mask: Mask) -> mx.array:
        if self.pre_norm:
            x = x + self.dropout(self.attention(self.attention_norm(x), mask))
            return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        x = self.attention_norm(x + self.dropout(self.attention(x, mask)))
        return self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))
