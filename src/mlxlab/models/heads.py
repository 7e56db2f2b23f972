"""What stands on a trunk: a classifier, or a language model."""

import warnings
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlxlab.models.layers import init_weights
from mlxlab.ops.activations import gelu
from mlxlab.ops.dropout import Dropout


class Classifier(nn.Module):
    """(B, D) pooled states -> (B, C) logits, through a hidden layer if `hidden` is not 0."""

    def __init__(self, width: int, num_classes: int, dropout: float, hidden: int = 0) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        if hidden:
            self.hidden = nn.Linear(width, hidden)
        self.out = nn.Linear(hidden or width, num_classes)
        init_weights(self)

    def __call__(self, x: mx.array) -> mx.array:
        x = self.dropout(x)
        if "hidden" in self:
            x = self.dropout(nn.relu(self.hidden(x)))
        return self.out(x)


class CausalHead(nn.Module):
    """(B, T, D) -> (B, T, V): the embedding again, or a matrix of its own."""

    def __init__(self, width: int, vocab_size: int, *, tied: bool) -> None:
        super().__init__()
        if not tied:
            self.out = nn.Linear(width, vocab_size, bias=False)
            init_weights(self)

    def __call__(self, x: mx.array, embedding: nn.Embedding) -> mx.array:
        return self.out(x) if "out" in self else embedding.as_linear(x)


class MaskedHead(nn.Module):
    """(B, T, D) -> (B, T, V): BERT's transform, then the embedding with a bias."""

    def __init__(self, width_in: int, width: int, vocab_size: int, eps: float = 1e-12) -> None:
        super().__init__()
        self.transform = nn.Linear(width_in, width)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.bias = mx.zeros((vocab_size,))
        init_weights(self)

    def __call__(self, x: mx.array, embedding: nn.Embedding) -> mx.array:
        return embedding.as_linear(self.norm(gelu(self.transform(x)))) + self.bias


def build_head(
    trunk: Any,
    *,
    kind: Literal["classification", "language_modelling"],
    num_classes: int = 0,
    dropout: float = 0.0,
) -> nn.Module:
    """The head of a task, with the weights that came with a pretrained trunk.

    For a language model the trunk gives up the parts that only pooling needs.
    """
    given = trunk.pop("_head", None)
    if kind == "classification":
        return Classifier(trunk.pooled_width, num_classes, dropout, getattr(trunk, "head_hidden", 0))
    head: nn.Module
    vocab_size = trunk.embedding.weight.shape[0]
    if trunk.causal:
        head = CausalHead(trunk.width, vocab_size, tied=trunk.tie_embeddings)
    else:
        trunk.drop_pool()
        head = MaskedHead(trunk.width_out, trunk.width, vocab_size)
    if given is not None:
        _load_head_weights(head, given)
    return head


def _load_head_weights(head: nn.Module, given: dict[str, mx.array]) -> None:
    """Loads what the folder had. A tied head wants nothing; what the folder lacks starts at random, with a warning."""
    leaves: list[tuple[str, Any]] = tree_flatten(head.parameters())  # type: ignore[assignment]
    expected = {path: leaf.shape for path, leaf in leaves}
    fitting = [(path, given[path]) for path, shape in expected.items() if path in given and given[path].shape == shape]
    if len(fitting) < len(expected):
        lacking = ", ".join(sorted(expected.keys() - dict(fitting).keys()))
        warnings.warn(f"the pretrained model brings no {lacking} for the head: random at the start", stacklevel=3)
    head.load_weights(fitting, strict=False)
