"""Ensembles: mean of logits or numbers, mean of probabilities, or weights per example from a router."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Literal

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxlab.backend.ops.cross_entropy import log_softmax
from mlxlab.checkpoint.arrays import update_hash
from mlxlab.data.batch import TaskKind
from mlxlab.models.layers import named_parameters

Weight = float | mx.array
Router = Callable[
    ..., list[mx.array]
]  # (logits=, targets=) -> a weight per member: (..., 1), targets being (...)
EnsembleMean = Literal["logits", "probabilities"]


class FrozenModel(nn.Module):
    """A frozen model, optionally with the classes, tokens or unit of another.

    Args:
        table: (V,) the model's own index of each class or token of the caller; None where the indices are equal.
        tokens: `table` also translates the input: the classes of a language model are its tokens.
        scale, shift: outputs are multiplied by `scale`, then `shift` is added: numbers are standardised differently.
    """

    def __init__(
        self,
        model: nn.Module,
        table: np.ndarray | None = None,
        *,
        tokens: bool = False,
        scale: float = 1.0,
        shift: float = 0.0,
    ) -> None:
        super().__init__()
        self.model = model
        self._table = None if table is None else mx.array(table.astype(np.int32))
        self._tokens = tokens
        self._scale = scale
        self._shift = shift
        self.freeze()
        self.eval()

    def __call__(self, tokens: mx.array, segment_ids: mx.array) -> mx.array:
        if self._table is None:
            outputs = self.model(tokens, segment_ids)
            if (self._scale, self._shift) == (1, 0):
                return outputs
            return outputs.astype(mx.float32) * self._scale + self._shift
        if self._tokens:
            tokens = self._table[tokens]
        return mx.take(self.model(tokens, segment_ids), self._table, axis=-1)


class Ensemble(nn.Module):
    """Frozen members whose outputs are averaged: a model like any other to evaluate and to predict with.

    `weights` has one per member; None weights all equally. A mean of probabilities is returned as logits. Numbers of a
    regression are averaged as they are, whatever the `mean`.
    """

    def __init__(
        self,
        members: Sequence[nn.Module],
        weights: Sequence[float] | None = None,
        mean: EnsembleMean = "logits",
        kind: TaskKind = "classification",
    ) -> None:
        super().__init__()
        self.members = list(members)
        self._weights = list(weights or [1.0] * len(self.members))
        self._mean = mean
        self._kind = kind
        self.freeze()
        self.eval()

    def __len__(self) -> int:
        return len(self.members)

    def __bool__(self) -> bool:  # a Module is a dict
        return bool(self.members)

    def __call__(self, tokens: mx.array, segment_ids: mx.array) -> mx.array:
        """(B, T) -> float32 logits shaped like those of the members: (B, C), (B, L), (B, 1) or (B, T, V)."""
        return self.combine(self.member_logits(tokens, segment_ids))

    def member_logits(self, tokens: mx.array, segment_ids: mx.array) -> list[mx.array]:
        return [member(tokens, segment_ids).astype(mx.float32) for member in self.members]

    def combine(self, logits: list[mx.array], weights: Sequence[Weight] | None = None) -> mx.array:
        """The weighted mean of the members' logits; `weights` may be arrays that broadcast over the classes."""
        weights = weights or self._weights
        if self._mean == "logits" or self._kind == "regression" or len(logits) == 1:
            return weighted_mean(logits, weights)
        if self._kind == "multi_label":
            positive = _log_mean([mx.sigmoid(z) for z in logits], weights)
            negative = _log_mean([mx.sigmoid(-z) for z in logits], weights)
            return positive - negative
        return _log_mean([mx.softmax(z, axis=-1) for z in logits], weights)

    def digest(self) -> str:
        """SHA-256 of every weight and of how the members are averaged."""
        result = hashlib.sha256(repr((self._weights, self._mean)).encode())
        update_hash(result, named_parameters(self))
        return result.hexdigest()


def weighted_mean(values: Sequence[mx.array], weights: Sequence[Weight]) -> mx.array:
    """A running mean: the mean of equal values is that value, bit for bit."""
    mean = values[0]
    total = weights[0]
    for value, weight in zip(values[1:], weights[1:], strict=True):
        total = total + weight
        mean = mean + (value - mean) * (weight / total)
    return mean


def _log_mean(probabilities: list[mx.array], weights: Sequence[Weight]) -> mx.array:
    return mx.log(mx.maximum(weighted_mean(probabilities, weights), 1e-30))


def true_class_confidence(*, logits: list[mx.array], targets: mx.array) -> list[mx.array]:
    """A router: weights each teacher by its probability of the true class (Zhang et al. 2022)."""
    return [
        mx.exp(mx.take_along_axis(log_softmax(z), targets[..., None], axis=-1)) + 1e-6
        for z in logits
    ]
