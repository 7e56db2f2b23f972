"""A decoder: the Llama architecture (Touvron et al. 2023) by default, older ones by its options."""

from typing import Literal

import mlx.core as mx
import mlx.nn as nn

from mlxlab.backend.ops.attention import Mask
from mlxlab.backend.ops.dropout import Dropout
from mlxlab.backend.ops.layers import Embedding, LayerNorm, RMSNorm
from mlxlab.models.layers import (
    Attention,
    FeedForward,
    KVCache,
    LayerCache,
    attention_mask,
    last_states,
    position_ids,
)
from mlxlab.models.rope import Llama3Scaling
from mlxlab.schema.constraints import Positive, Share, Size


class Transformer(nn.Module):
    """A pre-norm decoder, by default without biases: tokens (B, T) -> states (B, T, D).

    Each position attends to itself and what precedes it in its document.

    Args:
        hidden_size: dimensions of a state.
        num_layers: blocks of attention and feed-forward.
        num_heads: attention heads; must divide hidden_size.
        intermediate_size: hidden dimensions of each feed-forward layer.
        num_kv_heads: key-value heads, fewer for grouped-query attention; null is num_heads.
        max_position_embeddings: longest sequence, in tokens, for learned positions.
        norm_type: rms for RMSNorm, or layer for LayerNorm.
        mlp_type: a gated feed-forward layer (swiglu, geglu), or a plain one with that activation.
        position_embedding: rope for rotary positions, or learned.
        rope_theta: base of the rotary frequencies.
        tie_embeddings: whether the language-modelling head shares the token embedding.
        dropout: fraction of activations dropped in training.
        norm_eps: added to the variance in every norm.
        head_dim: dimensions of a head; null is hidden_size / num_heads.
        attention_bias: which attention layers have a bias: none, those of queries, keys and values (qkv), or all.
        qk_norm: RMSNorm over each head of queries and keys, before the rotary positions, as in Qwen3.
        rope_scaling: a `mlxlab.models.rope.Llama3Scaling` for contexts longer than the original ones; null has none.
        classifier_bias: whether a classifier has a bias; Llama's, in which it can be exported, has none.
    """

    causal = True
    separates_documents = True
    classifier_hidden_size = 0

    def __init__(
        self,
        hidden_size: Size = 128,
        num_layers: Size = 6,
        num_heads: Size = 4,
        intermediate_size: Size = 512,
        num_kv_heads: Size | None = None,
        max_position_embeddings: Size = 2048,
        norm_type: Literal["rms", "layer"] = "rms",
        mlp_type: Literal["swiglu", "geglu", "gelu", "relu", "silu"] = "swiglu",
        position_embedding: Literal["rope", "learned"] = "rope",
        rope_theta: Positive = 10000.0,
        tie_embeddings: bool = True,
        dropout: Share = 0.0,
        norm_eps: Positive = 1e-5,
        head_dim: Size | None = None,
        attention_bias: Literal["none", "qkv", "all"] = "none",
        qk_norm: bool = False,
        rope_scaling: Llama3Scaling | None = None,
        classifier_bias: bool = True,
        *,
        vocab_size: int,
    ) -> None:
        super().__init__()
        self.hidden_size = self.output_size = self.pooled_size = hidden_size
        self.num_layers = num_layers
        self.tie_embeddings = tie_embeddings
        self.classifier_bias = classifier_bias
        self.max_position_embeddings = max_position_embeddings
        self.position_limit: int | None = None
        theta: float | None = rope_theta
        if position_embedding == "learned":
            self.position_limit = max_position_embeddings
            theta = None
        self.embedding = Embedding(vocab_size, hidden_size)
        if self.position_limit is not None:
            self.position_embedding = Embedding(self.position_limit, hidden_size)
        self.dropout = Dropout(dropout)
        heads = (num_heads, num_kv_heads or num_heads)
        self.layers = []
        for _ in range(num_layers):
            attention = Attention(
                hidden_size,
                *heads,
                bias=attention_bias != "none",
                dropout=dropout,
                rope_theta=theta,
                head_dim=head_dim,
                out_bias=attention_bias == "all",
                qk_norm_eps=norm_eps if qk_norm else None,
                rope_scaling=rope_scaling,
            )
            feed_forward = FeedForward(mlp_type, hidden_size, intermediate_size, bias=False)
            norms = [new_norm(norm_type, hidden_size, norm_eps) for _ in range(2)]
            self.layers.append(DecoderBlock(attention, feed_forward, norms, dropout))
        self.norm = new_norm(norm_type, hidden_size, norm_eps)

    def __call__(self, tokens: mx.array, segment_ids: mx.array) -> mx.array:
        x = self.embedding(tokens)
        if self.position_limit is not None:
            x = x + self.position_embedding(position_ids(segment_ids, self.position_limit))
        x = self.dropout(x)  # (B, T, D)
        bias = attention_mask(segment_ids, causal=True, dtype=x.dtype)
        for layer in self.layers:
            x = layer(x, bias)
        return self.norm(x)

    def new_cache(self, padding: list[int]) -> KVCache:
        """An empty cache for rows that begin with these numbers of padding tokens."""
        return KVCache(self.num_layers, padding)

    def extend(self, tokens: mx.array, cache: KVCache) -> mx.array:
        """The next tokens (B, T) -> their states (B, T, D); ValueError if a row exceeds the learned positions."""
        x = self.embedding(tokens)
        if self.position_limit is not None:
            x = x + self.position_embedding(
                cache.position_ids(tokens.shape[1], self.position_limit)
            )
        bias = cache.mask(tokens.shape[1], x.dtype)
        for layer, layer_cache in zip(self.layers, cache.layers, strict=True):
            x = layer(x, bias, layer_cache)
        cache.length += tokens.shape[1]
        return self.norm(x)

    def pool(self, x: mx.array, segment_ids: mx.array) -> mx.array:
        """The state of the last real token of each row: (B, T, D) -> (B, D)."""
        return last_states(x, segment_ids)

    def remove_pooler(self) -> None:
        """Does nothing: `pool` has no parameters."""


class DecoderBlock(nn.Module):
    """Pre-norm attention and feed-forward with residual connections: (B, T, D) -> (B, T, D)."""

    def __init__(
        self,
        attention: Attention,
        feed_forward: FeedForward,
        norms: list[nn.Module],
        dropout: float,
    ) -> None:
        super().__init__()
        self.attention_norm = norms[0]
        self.attention = attention
        self.feed_forward_norm = norms[1]
        self.feed_forward = feed_forward
        self.dropout = Dropout(dropout)

    def __call__(self, x: mx.array, mask: Mask, layer_cache: LayerCache | None = None) -> mx.array:
        x = x + self.dropout(self.attention(self.attention_norm(x), mask, layer_cache))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


def new_norm(norm_type: str, size: int, eps: float) -> nn.Module:
    """RMSNorm, or LayerNorm without bias."""
    if norm_type == "rms":
        return RMSNorm(size, eps=eps)
    return LayerNorm(size, eps=eps, bias=False)
