"""Layers that the backbones share. Shapes: B rows, T positions, D hidden size, H heads."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlxlab.backend.ops.activations import gelu, glu, silu
from mlxlab.backend.ops.attention import (
    MASK_VALUE,
    Mask,
    SegmentMask,
    apply_rope,
    scaled_dot_product_attention,
)
from mlxlab.backend.ops.layers import Linear, RMSNorm
from mlxlab.errors import ConfigError
from mlxlab.models.rope import Llama3Scaling

ACTIVATIONS: dict[str, Callable[[mx.array], mx.array]] = {
    "gelu": gelu,
    "relu": nn.relu,
    "silu": silu,
}
GATES: dict[str, Literal["gelu", "silu"]] = {"swiglu": "silu", "geglu": "gelu"}


class KVCache:
    """Keys and values of a decoder's earlier tokens. Rows end together: `padding` is the tokens on the left of each."""

    def __init__(self, num_layers: int, padding: list[int]) -> None:
        self.length = 0  # positions held, padding included
        self.padding = padding
        self.layers = [LayerCache(self) for _ in range(num_layers)]

    def position_ids(self, count: int, limit: int) -> mx.array:
        """The positions of the next `count` tokens within their rows, (B, count); ValueError beyond `limit`."""
        if self.length + count - min(self.padding) > limit:
            raise ValueError(
                f"more than {limit} tokens in a row, the model has no positions for them"
            )
        new = mx.arange(self.length, self.length + count)
        return mx.maximum(new - mx.array(self.padding)[:, None], 0)

    @property
    def offset(self) -> int | mx.array:
        """The position of the next token: one number, or (B,) where rows differ."""
        offsets = [self.length - padding for padding in self.padding]
        if len(set(offsets)) == 1:
            return offsets[0]
        return mx.array(offsets)

    def mask(self, count: int, dtype: mx.Dtype) -> mx.array:
        """The bias for the next `count` tokens and all keys: (B, 1, count, length + count)."""
        keys = mx.arange(self.length + count)
        queries = keys[self.length :, None]
        allowed = (keys <= queries) & (
            keys >= mx.array(self.padding)[:, None, None]
        )  # (B, count, length + count)
        return mx.where(allowed, 0.0, MASK_VALUE).astype(dtype)[:, None]

    def keep(self, rows: list[int]) -> None:
        """Removes all rows but these."""
        self.padding = [self.padding[row] for row in rows]
        for layer in self.layers:
            layer.arrays = [array[mx.array(rows)] for array in layer.arrays]


class LayerCache:
    """Keys and values of one layer: (B, H, length, D / H).

    Concatenated for every token: preallocated blocks of 256 were not faster on a CPU (docs/explanation/log.md).
    """

    def __init__(self, cache: KVCache) -> None:
        self.cache = cache
        self.arrays: list[mx.array] = []  # keys and values, once there are any

    def update(self, keys: mx.array, values: mx.array) -> list[mx.array]:
        """Appends keys and values (B, H, count, D / H); returns all of them, (B, H, length + count, D / H)."""
        arrays = [keys, values]
        if self.arrays:
            pairs = zip(self.arrays, arrays, strict=True)
            arrays = [mx.concatenate([*pair], axis=2) for pair in pairs]
        self.arrays = arrays
        return arrays


class Attention(nn.Module):
    """Multi-head attention, optionally with fewer key-value heads (Ainslie et al. 2023) and rotary positions.

    Args:
        num_kv_heads: K; each serves H / K query heads.
        dropout: fraction of attention weights dropped in training.
        rope_theta: base of the rotary frequencies; None where the positions are in the inputs.
        head_dim: dimensions of a head; None is hidden_size / num_heads.
        out_bias: whether the output layer has a bias; None is `bias`.
        qk_norm_eps: of an RMSNorm over each head of queries and keys (Henry et al. 2020); None has no norm.
        rope_scaling: changes the rotary frequencies.

    Raises:
        ConfigError: the numbers of heads do not divide, or rotary positions get heads of odd size.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        num_kv_heads: int,
        bias: bool,
        dropout: float,
        rope_theta: float | None,
        head_dim: int | None = None,
        out_bias: bool | None = None,
        qk_norm_eps: float | None = None,
        rope_scaling: Llama3Scaling | None = None,
    ) -> None:
        super().__init__()
        if head_dim is None and hidden_size % num_heads:
            raise ConfigError(f"{num_heads} heads do not divide a hidden size of {hidden_size}")
        if num_heads % num_kv_heads:
            raise ConfigError(f"{num_kv_heads} key-value heads do not divide {num_heads} heads")
        self.head_dim = head_dim or hidden_size // num_heads
        width = num_heads * self.head_dim
        if rope_theta is not None and self.head_dim % 2:
            raise ConfigError(f"rotary positions need an even head dimension, got {self.head_dim}")
        if out_bias is None:
            out_bias = bias
        self.query = Linear(hidden_size, width, bias=bias)
        self.key = Linear(hidden_size, num_kv_heads * self.head_dim, bias=bias)
        self.value = Linear(hidden_size, num_kv_heads * self.head_dim, bias=bias)
        self.out = Linear(width, hidden_size, bias=out_bias)
        if qk_norm_eps is not None:
            self.query_norm = RMSNorm(self.head_dim, eps=qk_norm_eps)
            self.key_norm = RMSNorm(self.head_dim, eps=qk_norm_eps)
        self.dropout = dropout
        self.rope_theta = rope_theta
        periods = None
        if rope_theta and rope_scaling:
            periods = rope_scaling.periods(rope_theta, self.head_dim)
        self.rope_periods = periods

    def __call__(self, x: mx.array, mask: Mask, layer_cache: LayerCache | None = None) -> mx.array:
        """(B, T, D) -> (B, T, D); `mask` is that of `attention_mask`, or with a cache that of `KVCache.mask`."""
        B, T, _ = x.shape
        if layer_cache is None:
            q, k, v = self.project(x)
        else:
            q, k, v = self.project(x, layer_cache.cache.offset)
            k, v = layer_cache.update(k, v)
        dropout = 0.0
        if self.training:
            dropout = self.dropout
        x = scaled_dot_product_attention(
            q, k, v, mask, scale=1 / math.sqrt(self.head_dim), dropout=dropout
        )
        return self.out(x.transpose(0, 2, 1, 3).reshape(B, T, -1))

    def project(
        self, x: mx.array, offset: int | mx.array = 0
    ) -> tuple[mx.array, mx.array, mx.array]:
        """(B, T, D) -> queries (B, H, T, D / H), keys and values (B, K, T, D / H); the first position is `offset`."""
        q, k = self.queries_and_keys(x, offset)
        return q, k, self._split_heads(self.value(x))

    def queries_and_keys(
        self, x: mx.array, offset: int | mx.array = 0
    ) -> tuple[mx.array, mx.array]:
        """The first two of `project`."""
        q = self._split_heads(self.query(x))
        k = self._split_heads(self.key(x))
        if "query_norm" in self:
            q = self.query_norm(q)
            k = self.key_norm(k)
        if self.rope_theta is None:
            return q, k
        q, k = (apply_rope(array, self.rope_theta, offset, self.rope_periods) for array in (q, k))
        return q, k

    def _split_heads(self, x: mx.array) -> mx.array:
        """(B, T, H * D / H) -> (B, H, T, D / H)."""
        B, T, _ = x.shape
        return x.reshape(B, T, -1, self.head_dim).transpose(0, 2, 1, 3)


def attention_mask(
    segment_ids: mx.array, *, causal: bool, dtype: mx.Dtype, window: int | None = None
) -> mx.array | SegmentMask:
    """The mask of whole rows; `segment_ids` (B, T) as in `SegmentMask`.

    With a `window` real tokens attend only to positions at most that far away: a bias to add to attention scores, 0
    where attention is allowed and -1e9 where not, (B, 1, T, T).
    """
    if window is not None and window + 1 >= segment_ids.shape[1]:
        window = None  # every position is within it
    bias = attention_bias(segment_ids, causal, dtype, window)
    if window is None:
        return SegmentMask(segment_ids, causal, bias)
    return cast(mx.array, bias)


def attention_bias(
    segment_ids: mx.array, causal: bool, dtype: mx.Dtype, window: int | None
) -> mx.array | str:
    """The bias to add to attention scores, (B, 1, 1 or T, T); or "causal", of which fused kernels skip half."""
    if segment_ids.dtype == mx.bool_ and window is None:
        if causal:
            return "causal"
        return mx.where(segment_ids, 0.0, MASK_VALUE).astype(dtype)[:, None, None]
    query = segment_ids[:, :, None]
    key = segment_ids[:, None, :]
    allowed = (key > 0) & ((query == key) | (query == 0))  # (B, T, T)
    positions = mx.arange(segment_ids.shape[1])
    if causal:
        allowed = allowed & (positions[:, None] >= positions)
    if window is not None:
        allowed = allowed & ((mx.abs(positions[:, None] - positions) <= window) | (query == 0))
    return mx.where(allowed, 0.0, MASK_VALUE).astype(dtype)[:, None]  # (B, 1, T, T)


def position_ids(segment_ids: mx.array, limit: int) -> mx.array:
    """Each token's position within its document, from 0: (B, T), or (T,) for boolean ids; ValueError beyond `limit`."""
    # MLX has no bounds checks: an embedding would read garbage.
    if segment_ids.shape[1] > limit:
        raise ValueError(
            f"{segment_ids.shape[1]} tokens in a row, the model has positions for {limit}"
        )
    positions = mx.arange(segment_ids.shape[1])
    if segment_ids.dtype == mx.bool_:
        return positions
    starts = (segment_ids[:, 1:] != segment_ids[:, :-1]) & (segment_ids[:, 1:] > 0)
    first = mx.pad(mx.where(starts, positions[1:], 0), [(0, 0), (1, 0)])
    return positions - mx.cummax(first, axis=1)


def last_states(x: mx.array, segment_ids: mx.array) -> mx.array:
    """The state of the last real token of each row: (B, T, D) -> (B, D)."""
    last = mx.where(segment_ids > 0, mx.arange(x.shape[1]), 0).max(axis=1)  # (B,)
    return mx.take_along_axis(x, last[:, None, None], axis=1)[:, 0]


def follows(separator: int, tokens: mx.array, segment_ids: mx.array) -> mx.array:
    """Whether a `separator` stands anywhere before each token of a row; padding does not count: (B, T) bool."""
    separators = (tokens == separator) & (segment_ids > 0)
    return mx.cumsum(separators.astype(mx.int32), axis=1, inclusive=False) > 0


class FeedForward(nn.Module):
    """Two linear layers with an activation between, or an activated gate (Shazeer 2020): (..., D) -> (..., D)."""

    def __init__(self, mlp_type: str, size: int, hidden_size: int, *, bias: bool) -> None:
        super().__init__()
        self.activation = mlp_type
        if mlp_type in GATES:
            self.gate = Linear(size, hidden_size, bias=bias)
        self.up = Linear(size, hidden_size, bias=bias)
        self.down = Linear(hidden_size, size, bias=bias)

    def __call__(self, x: mx.array) -> mx.array:
        if "gate" in self:
            return self.down(glu(GATES[self.activation], self.gate(x), self.up(x)))
        return self.down(ACTIVATIONS[self.activation](self.up(x)))


def apply_output_layer(layer: nn.Linear, x: mx.array) -> mx.array:
    """(..., D) -> (..., C). A single output is a float32 sum of products instead of a matrix product.

    A BLAS rounds a product with one column by how the weight lies in memory, which a resume or a compiled step changes.
    """
    if layer.weight.shape[0] > 1:
        return layer(x)
    y = (x.astype(mx.float32) * layer.weight.astype(mx.float32)).sum(axis=-1, keepdims=True)
    if "bias" in layer:
        y = y + layer.bias.astype(mx.float32)
    return y


@contextmanager
def intercept(
    layers: Mapping[str, nn.Module],
    new_call: Callable[[str, type[nn.Module]], Callable[..., mx.array]],
) -> Iterator[None]:
    """Inside, a call of a layer is one of `new_call(name, its class)`: Python looks calls up in the class."""
    classes = {name: type(layer) for name, layer in layers.items()}
    try:
        for name, kind in classes.items():
            attributes = {"__call__": new_call(name, kind)}
            layers[name].__class__ = type(kind.__name__, (kind,), attributes)
        yield
    finally:
        for name, kind in classes.items():
            layers[name].__class__ = kind


def named_parameters(module: nn.Module) -> dict[str, mx.array]:
    """The arrays of a module by their path, as in a checkpoint."""
    return dict(tree_flatten(module.parameters()))
