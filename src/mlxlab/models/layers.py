"""Layers that the backbones share. Shapes: B rows, T positions, D hidden size, H heads."""

import math
from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn

from mlxlab.errors import ConfigError
from mlxlab.models.kv_cache import LayerCache
from mlxlab.ops.activations import gelu, glu, silu
from mlxlab.ops.attention import MASK_VALUE, scaled_dot_product_attention

ACTIVATIONS: dict[str, Callable[[mx.array], mx.array]] = {"relu": nn.relu, "gelu": gelu, "silu": silu}


class Attention(nn.Module):
    """Multi-head attention, optionally with fewer key-value heads (Ainslie et al. 2023) and rotary positions.

    Args:
        hidden_size: D, dimensions of inputs and outputs.
        num_heads: H, query heads.
        num_kv_heads: K, key-value heads; each serves H / K query heads.
        bias: whether the four projections have one.
        dropout: fraction of attention weights dropped in training.
        rope_theta: base of the rotary frequencies; None where the positions are in the inputs.

    Raises:
        ConfigError: the numbers of heads do not divide, or rotary positions get heads of odd size.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        num_kv_heads: int,
        *,
        bias: bool,
        dropout: float,
        rope_theta: float | None,
    ) -> None:
        super().__init__()
        check_heads(hidden_size, num_heads, num_kv_heads, rotary=rope_theta is not None)
        self.head_dim = hidden_size // num_heads
        self.query = nn.Linear(hidden_size, hidden_size, bias=bias)
        self.key = nn.Linear(hidden_size, num_kv_heads * self.head_dim, bias=bias)
        self.value = nn.Linear(hidden_size, num_kv_heads * self.head_dim, bias=bias)
        self.out = nn.Linear(hidden_size, hidden_size, bias=bias)
        self.dropout = dropout
        self.rope_theta = rope_theta

    def __call__(self, x: mx.array, mask: mx.array | str, layer_cache: LayerCache | None = None) -> mx.array:
        """(B, T, D) -> (B, T, D); `mask` is that of `attention_mask`, or with a cache that of `KVCache.mask`."""
        B, T, D = x.shape
        q, k, v = (
            layer(x).reshape(B, T, -1, self.head_dim).transpose(0, 2, 1, 3)
            for layer in (self.query, self.key, self.value)
        )  # (B, H, T, D / H), (B, K, T, D / H) twice
        if self.rope_theta is not None:
            offset = 0 if layer_cache is None else layer_cache.cache.offset
            q, k = apply_rope(q, self.rope_theta, offset), apply_rope(k, self.rope_theta, offset)
        if layer_cache is not None:
            k, v = layer_cache.update(k, v)
        x = scaled_dot_product_attention(
            q, k, v, mask, scale=1 / math.sqrt(self.head_dim), dropout=self.dropout if self.training else 0.0
        )
        return self.out(x.transpose(0, 2, 1, 3).reshape(B, T, D))


def check_heads(hidden_size: int, num_heads: int, num_kv_heads: int, *, rotary: bool) -> None:
    """ConfigError where such heads cannot be built."""
    if hidden_size % num_heads:
        raise ConfigError(f"{num_heads} heads do not divide a hidden size of {hidden_size}")
    if num_heads % num_kv_heads:
        raise ConfigError(f"{num_kv_heads} key-value heads do not divide {num_heads} heads")
    if rotary and hidden_size // num_heads % 2:
        raise ConfigError(f"rotary positions need an even head dimension, got {hidden_size // num_heads}")


def apply_rope(x: mx.array, theta: float, offset: int | mx.array = 0) -> mx.array:
    """Rotary positions (Su et al. 2021) on (B, H, T, D / H): keeps norms, and q.k depends on the distance only.

    The first position is number `offset`, an integer or (B,) of them.
    """
    return mx.fast.rope(x, x.shape[-1], traditional=False, base=theta, scale=1.0, offset=offset)


def attention_mask(mask: mx.array, *, causal: bool, dtype: mx.Dtype) -> mx.array | str:
    """The bias to add to attention scores, 0 where attention is allowed and -1e9 where not, or "causal".

    Integers are document numbers (B, T): a position attends to its own document; padding (0) is attended to by nobody
    and attends to all real tokens, as in BERT: (B, 1, T, T). Booleans promise one document per row, padded on the right
    only: (B, 1, 1, T), or "causal" without any array, for which fused kernels may skip half of the work.
    """
    if mask.dtype == mx.bool_:
        return "causal" if causal else mx.where(mask, 0.0, MASK_VALUE).astype(dtype)[:, None, None]  # (B, 1, 1, T)
    query, key = mask[:, :, None], mask[:, None, :]
    allowed = (key > 0) & ((query == key) | (query == 0))  # (B, T, T)
    if causal:
        allowed = allowed & _not_after(mask.shape[1])
    return mx.where(allowed, 0.0, MASK_VALUE).astype(dtype)[:, None]  # (B, 1, T, T)


def position_ids(mask: mx.array) -> mx.array:
    """The position of each token within its document, from 0: (B, T), or (T,) for a boolean mask."""
    positions = mx.arange(mask.shape[1])
    if mask.dtype == mx.bool_:
        return positions
    starts = (mask[:, 1:] != mask[:, :-1]) & (mask[:, 1:] > 0)
    first = mx.pad(mx.where(starts, positions[1:], 0), [(0, 0), (1, 0)])
    return positions - mx.cummax(first, axis=1)


def _not_after(length: int) -> mx.array:
    positions = mx.arange(length)
    return positions[:, None] >= positions[None, :]


class FeedForward(nn.Module):
    """Two linear layers with an activation between: (..., D) -> (..., D)."""

    def __init__(self, size: int, hidden_size: int, activation: str, *, bias: bool) -> None:
        super().__init__()
        self.up = nn.Linear(size, hidden_size, bias=bias)
        self.down = nn.Linear(hidden_size, size, bias=bias)
        self.activation = activation

    def __call__(self, x: mx.array) -> mx.array:
        return self.down(ACTIVATIONS[self.activation](self.up(x)))


class GatedFeedForward(nn.Module):
    """A feed-forward layer whose hidden layer is multiplied by an activated gate (Shazeer 2020): swiglu, geglu."""

    def __init__(self, size: int, hidden_size: int, activation: str, *, bias: bool) -> None:
        super().__init__()
        self.gate = nn.Linear(size, hidden_size, bias=bias)
        self.up = nn.Linear(size, hidden_size, bias=bias)
        self.down = nn.Linear(hidden_size, size, bias=bias)
        self.activation = activation

    def __call__(self, x: mx.array) -> mx.array:
        return self.down(glu(self.activation, self.gate(x), self.up(x)))


def feed_forward(mlp_type: str, size: int, hidden_size: int, *, bias: bool) -> nn.Module:
    """The feed-forward layer of that type: swiglu, geglu, or an activation."""
    gates = {"swiglu": "silu", "geglu": "gelu"}
    if mlp_type in gates:
        return GatedFeedForward(size, hidden_size, gates[mlp_type], bias=bias)
    return FeedForward(size, hidden_size, mlp_type, bias=bias)


def check_length(tokens: mx.array, limit: int) -> None:
    """ValueError for rows longer than `limit`. MLX has no bounds checks: they would read garbage."""
    if tokens.shape[1] > limit:
        raise ValueError(f"{tokens.shape[1]} tokens in a row, the model has positions for {limit}")
