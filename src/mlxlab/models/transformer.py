"""A decoder: the Llama architecture (Touvron et al. 2023) with the defaults, older ones by its switches."""

from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn

from mlxlab.constraints import Positive, Share, Size
from mlxlab.models.kv_cache import KVCache, LayerCache
from mlxlab.models.layers import Attention, attention_mask, check_length, feed_forward, init_weights, position_ids
from mlxlab.ops.dropout import Dropout


def transformer(
    width: Size,
    num_layers: Size,
    num_heads: Size,
    num_kv_heads: Size | None,
    feed_forward: Size,
    max_length: Size,
    norm: Literal["rms", "layer"],
    mlp: Literal["swiglu", "geglu", "gelu", "relu", "silu"],
    positions: Literal["rope", "learned"],
    rope_base: Positive,
    tie_embeddings: bool,
    dropout: Share,
    pretrained: str | None,
    *,
    vocab_size: int,
    weights: bool = True,
) -> "Transformer":
    """A pre-norm decoder without biases.

    Args:
        width: numbers per place.
        num_layers: blocks of attention and feed-forward.
        num_heads: attention heads; must divide width.
        num_kv_heads: key-value heads, fewer for grouped queries; null is num_heads.
        feed_forward: width of the hidden layer of each block.
        max_length: longest sequence, in tokens, for learned positions.
        norm: rms, or layer for LayerNorm.
        mlp: a gated feed-forward (swiglu, geglu) or a plain one with that activation.
        positions: rope for rotary ones, or learned.
        rope_base: base of the rotary frequencies.
        tie_embeddings: whether the language-model head is the embedding.
        dropout: share of activations dropped while training.
        pretrained: folder or hub id of Llama-type weights; their shape replaces the sizes above.
    """
    shape: dict[str, Any] = {
        "width": width,
        "num_layers": num_layers,
        "num_heads": num_heads,
        "num_kv_heads": num_kv_heads,
        "feed_forward": feed_forward,
        "max_length": max_length,
        "norm": norm,
        "mlp": mlp,
        "rope_base": rope_base if positions == "rope" else None,
        "tie_embeddings": tie_embeddings,
        "dropout": dropout,
        "vocab_size": vocab_size,
    }
    if pretrained is None:
        return Transformer(**shape)
    from mlxlab.models.pretrained.load import load_llama

    return load_llama(pretrained, shape, weights=weights)


class Transformer(nn.Module):
    """(B, T) tokens -> (B, T, D), each place seeing itself and what came before in its document."""

    causal = True

    def __init__(
        self,
        *,
        vocab_size: int,
        width: int,
        num_layers: int,
        num_heads: int,
        feed_forward: int,
        num_kv_heads: int | None = None,
        max_length: int = 2048,
        norm: str = "rms",
        mlp: str = "swiglu",
        rope_base: float | None = 10000.0,
        tie_embeddings: bool = True,
        dropout: float = 0.0,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.width = self.width_out = self.pooled_width = width
        self.max_length, self.tie_embeddings = max_length, tie_embeddings
        self.embedding = nn.Embedding(vocab_size, width)
        if rope_base is None:
            self.position_embedding = nn.Embedding(max_length, width)
        self.dropout = Dropout(dropout)
        heads = (num_heads, num_kv_heads or num_heads)
        self.layers = [
            DecoderBlock(width, *heads, feed_forward, norm, mlp, dropout, rope_base, eps) for _ in range(num_layers)
        ]
        self.norm = new_norm(norm, width, eps)
        init_weights(self, scaled=("attention.out", "feed_forward.down"), depth=num_layers)

    def __call__(self, tokens: mx.array, mask: mx.array) -> mx.array:
        x = self.embedding(tokens)
        if "position_embedding" in self:
            check_length(tokens, self.max_length)
            x = x + self.position_embedding(position_ids(mask))
        x = self.dropout(x)  # (B, T, D)
        allowed = attention_mask(mask, causal=True, dtype=x.dtype)
        for layer in self.layers:
            x = layer(x, allowed)
        return self.norm(x)

    def extend(self, tokens: mx.array, cache: KVCache) -> mx.array:
        """The states of further tokens (B, T), each seeing what the cache holds of its row; it then holds them too."""
        x = self.embedding(tokens)
        if "position_embedding" in self:
            x = x + self.position_embedding(cache.places(tokens.shape[1], self.max_length))
        allowed = cache.mask(tokens.shape[1], x.dtype)
        for layer, past in zip(self.layers, cache.layers, strict=True):
            x = layer(x, allowed, past)
        cache.length += tokens.shape[1]
        return self.norm(x)  # (B, T, D)

    def pool(self, x: mx.array, mask: mx.array) -> mx.array:
        """The state of the last real token of each row: (B, D)."""
        places = mx.arange(x.shape[1])
        last = mx.where(mask > 0, places, 0).max(axis=1)  # (B,)
        return mx.take_along_axis(x, last[:, None, None], axis=1)[:, 0]


class DecoderBlock(nn.Module):
    def __init__(
        self,
        width: int,
        num_heads: int,
        num_kv_heads: int,
        hidden: int,
        norm: str,
        mlp: str,
        dropout: float,
        rope_base: float | None,
        eps: float,
    ) -> None:
        super().__init__()
        self.attention_norm = new_norm(norm, width, eps)
        self.attention = Attention(width, num_heads, num_kv_heads, bias=False, dropout=dropout, rope_base=rope_base)
        self.feed_forward_norm = new_norm(norm, width, eps)
        self.feed_forward = feed_forward(mlp, width, hidden, bias=False)
        self.dropout = Dropout(dropout)

    def __call__(self, x: mx.array, mask: mx.array | str, past: LayerCache | None = None) -> mx.array:
        x = x + self.dropout(self.attention(self.attention_norm(x), mask, past))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


def new_norm(kind: str, width: int, eps: float) -> nn.Module:
    return nn.RMSNorm(width, eps=eps) if kind == "rms" else nn.LayerNorm(width, eps=eps, bias=False)
