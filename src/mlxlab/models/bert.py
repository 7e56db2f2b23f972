"""BERT (Devlin et al. 2018): a bidirectional encoder, laid out so that the published weights load."""

from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn

from mlxlab.constraints import Positive, Share, Size
from mlxlab.models.layers import Attention, attention_mask, check_length, feed_forward, init_weights, position_ids
from mlxlab.ops.dropout import Dropout


def bert(
    width: Size,
    num_layers: Size,
    num_heads: Size,
    feed_forward: Size,
    max_length: Size,
    dropout: Share,
    positions: Literal["learned", "rope"],
    rope_base: Positive,
    mlp: Literal["gelu", "relu", "silu", "geglu", "swiglu"],
    pre_norm: bool,
    pretrained: str | None,
    *,
    vocab_size: int,
    weights: bool = True,
) -> "Bert":
    """A BERT encoder: the classic one by default (post-norm, learned positions, erf-GELU).

    Args:
        width: numbers per place.
        num_layers: blocks of attention and feed-forward.
        num_heads: attention heads; must divide width.
        feed_forward: width of the hidden layer of each block.
        max_length: longest sequence, in tokens, for learned positions.
        dropout: share of activations dropped while training.
        positions: learned, or rope for rotary ones.
        rope_base: base of the rotary frequencies.
        mlp: an activation, or a gated feed-forward (geglu, swiglu).
        pre_norm: norm before each part instead of after it.
        pretrained: folder or hub id of Hugging Face weights; their shape replaces the sizes above.
    """
    shape: dict[str, Any] = {
        "width": width,
        "num_layers": num_layers,
        "num_heads": num_heads,
        "feed_forward": feed_forward,
        "max_length": max_length,
        "dropout": dropout,
        "rope_base": rope_base if positions == "rope" else None,
        "mlp": mlp,
        "pre_norm": pre_norm,
        "vocab_size": vocab_size,
    }
    if pretrained is None:
        return Bert(**shape)
    from mlxlab.models.pretrained.load import load_bert

    return load_bert(pretrained, shape, weights=weights)


class Bert(nn.Module):
    """(B, T) tokens -> (B, T, D), each place seeing all of its document."""

    causal = False

    def __init__(
        self,
        *,
        vocab_size: int,
        width: int,
        num_layers: int,
        num_heads: int,
        feed_forward: int,
        max_length: int = 512,
        dropout: float = 0.1,
        rope_base: float | None = None,
        mlp: str = "gelu",
        pre_norm: bool = False,
        eps: float = 1e-12,
    ) -> None:
        super().__init__()
        self.width = self.width_out = self.pooled_width = width
        self.max_length = max_length
        self.embedding = nn.Embedding(vocab_size, width)
        self.type_embedding = nn.Embedding(2, width)
        if rope_base is None:
            self.position_embedding = nn.Embedding(max_length, width)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.dropout = Dropout(dropout)
        self.layers = [
            BertBlock(width, num_heads, feed_forward, mlp, dropout, rope_base, pre_norm, eps) for _ in range(num_layers)
        ]
        if pre_norm:
            self.last_norm = nn.LayerNorm(width, eps=eps)
        self.pooler = nn.Linear(width, width)
        init_weights(self)

    def __call__(self, tokens: mx.array, mask: mx.array, types: mx.array | None = None) -> mx.array:
        """`types` are BERT's token types (B, T): 0 everywhere if not given."""
        x = self.embedding(tokens) + (self.type_embedding.weight[0] if types is None else self.type_embedding(types))
        if "position_embedding" in self:
            check_length(tokens, self.max_length)
            x = x + self.position_embedding(position_ids(mask))
        x = self.dropout(self.norm(x))  # (B, T, D)
        allowed = attention_mask(mask, causal=False, dtype=x.dtype)
        for layer in self.layers:
            x = layer(x, allowed)
        return self.last_norm(x) if "last_norm" in self else x

    def pool(self, x: mx.array, mask: mx.array) -> mx.array:
        """The state of the first real place of each row, through a dense layer and tanh: (B, D)."""
        first = mx.argmax(mask > 0, axis=1)  # (B,)
        return mx.tanh(self.pooler(mx.take_along_axis(x, first[:, None, None], axis=1)[:, 0]))

    def drop_pool(self) -> None:
        """Leaves out what only pooling needs: a language model would never train it."""
        self.pop("pooler")


class BertBlock(nn.Module):
    def __init__(
        self,
        width: int,
        num_heads: int,
        hidden: int,
        mlp: str,
        dropout: float,
        rope_base: float | None,
        pre_norm: bool,
        eps: float,
    ) -> None:
        super().__init__()
        self.attention = Attention(width, num_heads, num_heads, bias=True, dropout=dropout, rope_base=rope_base)
        self.attention_norm = nn.LayerNorm(width, eps=eps)
        self.feed_forward = feed_forward(mlp, width, hidden, bias=True)
        self.feed_forward_norm = nn.LayerNorm(width, eps=eps)
        self.dropout = Dropout(dropout)
        self.pre_norm = pre_norm

    def __call__(self, x: mx.array, mask: mx.array | str) -> mx.array:
        if self.pre_norm:
            x = x + self.dropout(self.attention(self.attention_norm(x), mask))
            return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        x = self.attention_norm(x + self.dropout(self.attention(x, mask)))
        return self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))
