"""Heads: a classifier, or a causal or masked language model."""

from typing import Literal, cast

import mlx.core as mx
import mlx.nn as nn

from mlxlab.models.backbone import Backbone, CausalBackbone
from mlxlab.ops.activations import gelu
from mlxlab.ops.dropout import Dropout


class Classifier(nn.Module):
    """Pooled states (B, P) -> logits (B, C), through a hidden layer unless `hidden_size` is 0."""

    def __init__(self, input_size: int, num_classes: int, dropout: float, hidden_size: int = 0) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        if hidden_size:
            self.hidden = nn.Linear(input_size, hidden_size)
        self.out = nn.Linear(hidden_size or input_size, num_classes)

    def __call__(self, x: mx.array) -> mx.array:
        x = self.dropout(x)
        if "hidden" in self:
            x = self.dropout(nn.relu(self.hidden(x)))
        return self.out(x)


class CausalHead(nn.Module):
    """States (B, T, D) -> logits (B, T, V) by the transposed embedding, or by a matrix of its own."""

    def __init__(self, hidden_size: int, vocab_size: int, *, tied: bool) -> None:
        super().__init__()
        if not tied:
            self.out = nn.Linear(hidden_size, vocab_size, bias=False)

    def __call__(self, x: mx.array, embedding: nn.Embedding) -> mx.array:
        return self.out(x) if "out" in self else embedding.as_linear(x)


class MaskedHead(nn.Module):
    """States (B, T, O) -> logits (B, T, V): BERT's transform, then the transposed embedding and a bias."""

    def __init__(self, input_size: int, hidden_size: int, vocab_size: int) -> None:
        super().__init__()
        self.transform = nn.Linear(input_size, hidden_size)
        self.norm = nn.LayerNorm(hidden_size, eps=1e-12)
        self.bias = mx.zeros((vocab_size,))

    def __call__(self, x: mx.array, embedding: nn.Embedding) -> mx.array:
        return embedding.as_linear(self.norm(gelu(self.transform(x)))) + self.bias


TaskKind = Literal["classification", "language_modelling"]
Head = Classifier | CausalHead | MaskedHead


def build_head(backbone: Backbone, *, kind: TaskKind, num_classes: int = 0, dropout: float = 0.0) -> Head:
    """The head of a task. For a language model the backbone loses the parameters that only pooling uses."""
    if kind == "classification":
        return Classifier(backbone.pooled_size, num_classes, dropout, backbone.classifier_hidden_size)
    backbone.remove_pooler()
    vocab_size = backbone.embedding.weight.shape[0]
    if backbone.causal:
        return CausalHead(backbone.hidden_size, vocab_size, tied=cast(CausalBackbone, backbone).tie_embeddings)
    return MaskedHead(backbone.output_size, backbone.hidden_size, vocab_size)
