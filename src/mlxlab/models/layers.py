"""Layers that the trunks share. Shapes: B rows, T places, D width, H heads."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from mlxlab.ops.activations import gelu, glu, silu
from mlxlab.ops.attention import MASK_VALUE, scaled_dot_product_attention

if TYPE_CHECKING:
    from mlxlab.models.kv_cache import LayerCache

ACTIVATIONS: dict[str, Callable[[mx.array], mx.array]] = {"relu": nn.relu, "gelu": gelu, "silu": silu}


class Attention(nn.Module):
    """Multi-head attention, with fewer key-value heads if expected (Ainslie et al. 2023), and rotary positions.

    `rope_base` of None means that positions come from elsewhere. Raises ValueError where the heads do not divide.
    """

    def __init__(
        self, width: int, num_heads: int, num_kv_heads: int, *, bias: bool, dropout: float, rope_base: float | None
    ) -> None:
        super().__init__()
        check_heads(width, num_heads, num_kv_heads, rotary=rope_base is not None)
        self.head = width // num_heads
        self.repeats = num_heads // num_kv_heads
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(width, num_kv_heads * self.head, bias=bias)
        self.value = nn.Linear(width, num_kv_heads * self.head, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)
        self.drops = dropout
        self.rope_base = rope_base

    def __call__(self, x: mx.array, mask: mx.array | str, past: "LayerCache | None" = None) -> mx.array:
        """(B, T, D) -> (B, T, D); `mask` is that of `attention_mask`, or with `past` that of its cache."""
        B, T, D = x.shape
        q, k, v = (
            layer(x).reshape(B, T, -1, self.head).transpose(0, 2, 1, 3) for layer in (self.query, self.key, self.value)
        )  # (B, H, T, D / H), with fewer heads for k and v if so expected
        if self.rope_base is not None:
            offset = 0 if past is None else past.cache.offset
            q, k = apply_rope(q, self.rope_base, offset), apply_rope(k, self.rope_base, offset)
        if past is not None:
            k, v = past.extend(k, v)
        x = scaled_dot_product_attention(
            q, k, v, mask, scale=1 / math.sqrt(self.head), dropout=self.drops if self.training else 0.0
        )
        return self.out(x.transpose(0, 2, 1, 3).reshape(B, T, D))


def check_heads(width: int, num_heads: int, num_kv_heads: int, *, rotary: bool) -> None:
    """ValueError where heads of these numbers cannot be made."""
    if width % num_heads:
        raise ValueError(f"{num_heads} heads do not divide a width of {width}")
    if num_heads % num_kv_heads:
        raise ValueError(f"{num_kv_heads} key-value heads do not divide {num_heads} heads")
    if rotary and width // num_heads % 2:
        raise ValueError(f"rotary positions turn pairs: heads of {width // num_heads} numbers have one too many")


def apply_rope(x: mx.array, base: float, offset: int | mx.array = 0) -> mx.array:
    """Rotary positions (Su et al. 2021) on (B, H, T, D / H): norms stay, q.k depends on the distance only.

    The first place is number `offset`, which may be (B,) numbers.
    """
    return mx.fast.rope(x, x.shape[-1], traditional=False, base=base, scale=1.0, offset=offset)


def attention_mask(mask: mx.array, *, causal: bool, dtype: mx.Dtype) -> mx.array | str:
    """What each place may look at: "causal", or numbers to add to the scores: 0 where it may, -1e9 where not.

    Integers are document numbers (B, T): a place sees its own document, padding (0) is seen by nobody and sees what is
    real, as in BERT. Booleans say that there is one document a row, padded on the right at most: then no (T, T) array
    is needed, and fused kernels may skip half of the work.
    """
    if mask.dtype == mx.bool_:
        return "causal" if causal else mx.where(mask, 0.0, MASK_VALUE).astype(dtype)[:, None, None]  # (B, 1, 1, T)
    query, key = mask[:, :, None], mask[:, None, :]
    allowed = (key > 0) & ((query == key) | (query == 0))  # (B, T, T)
    if causal:
        allowed = allowed & _not_after(mask.shape[1])
    return mx.where(allowed, 0.0, MASK_VALUE).astype(dtype)[:, None]  # (B, 1, T, T)


def position_ids(mask: mx.array) -> mx.array:
    """The place of each token within its document, from 0: (B, T), or (T,) for a boolean mask."""
    places = mx.arange(mask.shape[1])
    if mask.dtype == mx.bool_:
        return places
    starts = (mask[:, 1:] != mask[:, :-1]) & (mask[:, 1:] > 0)
    first = mx.pad(mx.where(starts, places[1:], 0), [(0, 0), (1, 0)])
    return places - mx.cummax(first, axis=1)


def _not_after(length: int) -> mx.array:
    places = mx.arange(length)
    return places[:, None] >= places[None, :]


class FeedForward(nn.Module):
    """Two layers with an activation between."""

    def __init__(self, width: int, hidden: int, activation: str, *, bias: bool) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden, bias=bias)
        self.down = nn.Linear(hidden, width, bias=bias)
        self.activation = activation

    def __call__(self, x: mx.array) -> mx.array:
        return self.down(ACTIVATIONS[self.activation](self.up(x)))


class GatedFeedForward(nn.Module):
    """The hidden layer is multiplied by an activated gate (Shazeer 2020): swiglu, geglu."""

    def __init__(self, width: int, hidden: int, activation: str, *, bias: bool) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=bias)
        self.up = nn.Linear(width, hidden, bias=bias)
        self.down = nn.Linear(hidden, width, bias=bias)
        self.activation = activation

    def __call__(self, x: mx.array) -> mx.array:
        return self.down(glu(self.activation, self.gate(x), self.up(x)))


def feed_forward(kind: str, width: int, hidden: int, *, bias: bool) -> nn.Module:
    """The feed-forward layer of that name: swiglu, geglu, or an activation."""
    gates = {"swiglu": "silu", "geglu": "gelu"}
    if kind in gates:
        return GatedFeedForward(width, hidden, gates[kind], bias=bias)
    return FeedForward(width, hidden, kind, bias=bias)


def init_weights(model: nn.Module, *, std: float = 0.02, scaled: tuple[str, ...] = (), depth: int = 1) -> None:
    """Matrices and embeddings from N(0, std), biases zero, norms as they are (GPT-2, BERT).

    `scaled` names the layers that write into the residual stream: theirs is std / sqrt(2 depth).
    """
    new = []
    leaves: list[tuple[str, Any]] = tree_flatten(model.parameters())  # type: ignore[assignment]
    for path, leaf in leaves:
        if path.endswith("bias"):
            new.append((path, mx.zeros_like(leaf)))
        elif leaf.ndim >= 2:
            shrunk = path.endswith(tuple(f"{name}.weight" for name in scaled))
            new.append((path, mx.random.normal(leaf.shape, scale=std / math.sqrt(2 * depth) if shrunk else std)))
    model.update(tree_unflatten(new))


def check_length(tokens: mx.array, longest: int) -> None:
    """MLX has no bounds checks: a longer row would read garbage."""
    if tokens.shape[1] > longest:
        raise ValueError(f"{tokens.shape[1]} tokens in a row, the model has positions for {longest}")
