"""A model: a backbone and a head, which is a classifier or a causal or masked language model."""

import math
from typing import cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlxlab.backend.ops.activations import gelu
from mlxlab.backend.ops.dropout import Dropout
from mlxlab.backend.ops.layers import LayerNorm, Linear, tied_logits
from mlxlab.data.batch import TaskKind
from mlxlab.models.adapters.freeze import trainable_names
from mlxlab.models.adapters.quantized import parameter_shapes
from mlxlab.models.backbone import Backbone, CausalBackbone
from mlxlab.models.bert import Bert
from mlxlab.models.layers import Attention, apply_output_layer
from mlxlab.models.tabular import Tabular, TabularHead
from mlxlab.models.transformer import Transformer


class Classifier(nn.Module):
    """Pooled states (B, P) -> logits of C classes or labels, or one number: (B, C).

    Through a hidden layer unless `hidden_size` is 0.
    """

    def __init__(
        self,
        input_size: int,
        num_classes: int,
        dropout: float,
        hidden_size: int = 0,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        if hidden_size:
            self.hidden = Linear(input_size, hidden_size)
        self.out = Linear(hidden_size or input_size, num_classes, bias=bias)

    def __call__(self, x: mx.array) -> mx.array:
        x = self.dropout(x)
        if "hidden" in self:
            x = self.dropout(nn.relu(self.hidden(x)))
        return apply_output_layer(self.out, x)


class CausalHead(nn.Module):
    """States (B, T, D) -> logits (B, T, V) by the transposed embedding, or by a matrix of its own.

    Without either (`tied` is None) the states are the logits of a backbone with an output layer of its own.
    """

    def __init__(self, hidden_size: int, vocab_size: int, *, tied: bool | None) -> None:
        super().__init__()
        self.is_identity = tied is None
        if tied is False:
            self.out = Linear(hidden_size, vocab_size, bias=False)

    def __call__(self, x: mx.array, embedding: nn.Embedding) -> mx.array:
        if self.is_identity:
            return x
        if "out" in self:
            return self.out(x)
        return embedding.as_linear(x)


class MaskedHead(nn.Module):
    """States (B, T, O) -> logits (B, T, V): BERT's transform, then the transposed embedding and a bias."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        vocab_size: int,
        norm_eps: float = 1e-12,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.transform = Linear(input_size, hidden_size, bias=bias)
        self.norm = LayerNorm(hidden_size, eps=norm_eps, bias=bias)
        self.bias = mx.zeros((vocab_size,))

    def __call__(self, x: mx.array, embedding: nn.Embedding) -> mx.array:
        return tied_logits(embedding, self.norm(gelu(self.transform(x))), self.bias)


Head = Classifier | CausalHead | MaskedHead | TabularHead


def build_head(
    backbone: Backbone, *, kind: TaskKind, num_classes: int = 0, dropout: float = 0.0
) -> Head:
    """The head of a task. For a language model the backbone loses the parameters that only pooling uses."""
    if isinstance(backbone, Tabular):
        return backbone.new_head(kind, num_classes)
    if kind != "language_modelling":
        bias = not isinstance(backbone, Transformer) or backbone.classifier_bias
        return Classifier(
            backbone.pooled_size, num_classes, dropout, backbone.classifier_hidden_size, bias=bias
        )
    backbone.remove_pooler()
    vocab_size = backbone.embedding.weight.shape[0]
    if backbone.causal:
        return CausalHead(
            backbone.hidden_size, vocab_size, tied=cast(CausalBackbone, backbone).tie_embeddings
        )
    sizes = (backbone.output_size, backbone.hidden_size, vocab_size)
    if isinstance(backbone, Bert):
        return MaskedHead(*sizes, backbone.norm_eps, bias=backbone.bias)
    return MaskedHead(*sizes)


class Model(nn.Module):
    """Tokens and segment ids (B, T) as in `Backbone` -> logits: (B, T, V) of a language model, (B, C) of all others.

    C is the number of classes or labels, or 1 for a regression. A boolean `segment_ids` is cheaper for long rows.
    """

    def __init__(self, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def __call__(self, tokens: mx.array, segment_ids: mx.array) -> mx.array:
        x = self.backbone(tokens, segment_ids)
        if isinstance(self.head, Classifier | TabularHead):
            return self.head(self.backbone.pool(x, segment_ids))
        return self.logits(x)

    def logits(self, x: mx.array) -> mx.array:
        """States of a language model's backbone (..., O) -> logits (..., V)."""
        return cast(CausalHead | MaskedHead, self.head)(x, self.backbone.embedding)


def count_parameters(model: nn.Module) -> int:
    """The exact count, without allocating: the arrays of a new model are unevaluated until they are used."""
    return sum(math.prod(shape) for shape in parameter_shapes(model).values())


def count_trainable(model: nn.Module) -> int:
    """The parameters that are not frozen."""
    leaves: dict[str, mx.array] = dict(tree_flatten(model.trainable_parameters()))
    return sum(leaf.size for leaf in leaves.values())


def training_flops(model: Model, length: int) -> float:
    """Operations of one training step per token: 6 N + 12 L d T (Chowdhery et al. 2022, appendix B).

    N counts the weights that every token is multiplied by: matrices, including the embedding where it is also the head,
    excluding lookup tables. L d is the summed width of all attention layers, T the row length; as in the paper, the
    half that a causal mask saves is counted. 2 N and 4 L d T are the forward pass, 2 N the gradients of weights, which
    frozen ones do not have, and the rest the gradients of activations. Work that a step saves (a masked model's head at
    its targets only) or repeats (activation checkpointing) is not counted.
    """
    lookup_tables = ["position_embedding.weight", "type_embedding.weight"]
    if isinstance(model.head, CausalHead) and "out" in model.head:
        lookup_tables.append("embedding.weight")
    # Below `backbone.`, or below the encoder of a CnnHybrid.
    excluded = {f"backbone.{prefix}{name}" for name in lookup_tables for prefix in ("", "encoder.")}
    trained = set(trainable_names(model))
    shapes = parameter_shapes(model)
    flops = 0.0
    for path, shape in shapes.items():
        if len(shape) >= 2 and path.replace(".base.", ".") not in excluded:
            products = 2 + (path in trained)
            flops += 2.0 * products * math.prod(shape)
    for layer in model.modules():
        if isinstance(layer, Attention):
            flops += 12.0 * layer.query.weight.shape[0] * length
    return flops
