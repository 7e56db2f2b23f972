"""An encoder whose states also pass through parallel convolutions (Kim 2014), fused and joined with its pooled one."""

from typing import Annotated, Literal

import mlx.core as mx
import mlx.nn as nn

from mlxlab.constraints import MinLen, Positive, Share, Size
from mlxlab.models.bert import Bert, bert
from mlxlab.models.convolution import AttentionFusion, Branch, ConcatFusion, DilatedBranch, Highway
from mlxlab.ops.attention import MASK_VALUE

JOINED = 512  # width of the joined state


def cnn_hybrid(
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
    kernels: Annotated[list[Size], MinLen(1)],
    filters: Size,
    dilations: list[Size],
    branch_dropout: Share,
    fusion: Literal["attention", "concat"],
    highway: bool,
    pretrained: str | None,
    *,
    vocab_size: int,
    weights: bool = True,
) -> "CnnHybrid":
    """A BERT encoder with convolutions over its states.

    Args:
        width: numbers per place.
        num_layers: blocks of attention and feed-forward.
        num_heads: attention heads; must divide width.
        feed_forward: width of the hidden layer of each block.
        max_length: longest sequence, in tokens, for learned positions.
        dropout: share of the encoder's activations dropped while training.
        positions: learned, or rope for rotary ones.
        rope_base: base of the rotary frequencies.
        mlp: an activation, or a gated feed-forward (geglu, swiglu).
        pre_norm: norm before each part instead of after it.
        kernels: widths of the convolutions, one branch each.
        filters: channels of every branch.
        dilations: dilations of the branch of kernel 3; an empty list leaves that branch out.
        branch_dropout: share of the branches' activations dropped while training.
        fusion: attention weighs the branches against each other; concat joins them.
        highway: two highway layers after the fusion.
        pretrained: folder or hub id of BERT weights for the encoder; their shape replaces the sizes above.
    """
    encoder = bert(
        width,
        num_layers,
        num_heads,
        feed_forward,
        max_length,
        dropout,
        positions,
        rope_base,
        mlp,
        pre_norm,
        pretrained,
        vocab_size=vocab_size,
        weights=weights,
    )
    return CnnHybrid(encoder, kernels, filters, dilations, branch_dropout, fusion, highway)


class CnnHybrid(nn.Module):
    """(B, T) tokens -> (B, T, D + F): encoder states and fused convolutions. `pool` -> (B, 512)."""

    causal = False
    pooled_width = JOINED
    head_hidden = 256

    def __init__(
        self,
        encoder: Bert,
        kernels: list[int],
        filters: int,
        dilations: list[int],
        branch_dropout: float = 0.5,
        fusion: str = "attention",
        highway: bool = True,
    ) -> None:
        super().__init__()
        encoder.pop("_head", None)  # of another width than a head of ours
        self.encoder = encoder
        self.width, self.width_out = encoder.width, encoder.width + filters
        # A list, not tuples: MLX does not look for parameters inside tuples.
        self.branches = [Branch(self.width, filters, kernel, branch_dropout) for kernel in kernels]
        if dilations:
            self.dilated = DilatedBranch(self.width, filters, list(dilations), branch_dropout)
        count = len(kernels) + bool(dilations)
        self.fusion = AttentionFusion(filters) if fusion == "attention" else ConcatFusion(count, filters)
        self.highway = [Highway(filters) for _ in range(2 if highway else 0)]
        self.joined = nn.Linear(self.width_out, JOINED)
        self.joined_norm = nn.LayerNorm(JOINED)

    @property
    def embedding(self) -> nn.Embedding:
        return self.encoder.embedding

    def __call__(self, tokens: mx.array, mask: mx.array) -> mx.array:
        states = self.encoder(tokens, mask)  # (B, T, D)
        branches = [branch(states, mask) for branch in self.branches]
        if "dilated" in self:
            branches.append(self.dilated(states, mask))
        x = self.fusion(branches, mask)  # (B, T, F)
        for layer in self.highway:
            x = layer(x)
        return mx.concatenate([states, x], axis=-1)

    def pool(self, x: mx.array, mask: mx.array) -> mx.array:
        states, features = mx.split(x, [self.width], axis=-1)
        # Masked after fusion and highway, whose biases make padding non-zero again.
        greatest = mx.where((mask > 0)[..., None], features, MASK_VALUE).max(axis=1)  # (B, F)
        both = mx.concatenate([self.encoder.pool(states, mask), greatest], axis=-1)
        return nn.relu(self.joined_norm(self.joined(both)))  # the head begins with dropout

    def drop_pool(self) -> None:
        """Leaves out what only pooling needs: a language model would never train it."""
        self.encoder.drop_pool()
        self.pop("joined")
        self.pop("joined_norm")
