"""Models that answer as one: mean of logits, mean of probabilities, or weighted by a router, example by example."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Literal

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

Weight = float | mx.array
Router = Callable[..., list[mx.array]]  # (answers=, targets=) -> a weight per member: (..., 1), targets being (...)


class FrozenModel(nn.Module):
    """A frozen model, asked in the words of another.

    Args:
        table: (V,) this model's number for each class or token that is asked for; None where the numbers are the same.
        tokens: whether `table` also translates the input: the classes of a language model are its tokens.
    """

    def __init__(self, model: nn.Module, table: np.ndarray | None = None, *, tokens: bool = False) -> None:
        super().__init__()
        self.model = model
        self._table = None if table is None else mx.array(table.astype(np.int32))
        self._tokens = tokens
        self.freeze()
        self.eval()

    def __call__(self, tokens: mx.array, mask: mx.array) -> mx.array:
        if self._table is None:
            return self.model(tokens, mask)
        logits = self.model(self._table[tokens] if self._tokens else tokens, mask)
        return mx.take(logits, self._table, axis=-1)


class Ensemble(nn.Module):
    """Frozen members, their answers combined: a model like any other to evaluate and to predict with.

    Args:
        weights: one per member; None weighs all alike.
        combine: the mean is that of logits, or of probabilities (returned as their logarithm).
    """

    def __init__(
        self,
        members: Sequence[nn.Module],
        weights: Sequence[float] | None = None,
        combine: Literal["logits", "probabilities"] = "logits",
    ) -> None:
        super().__init__()
        self.members = list(members)
        self._weights = list(weights) if weights is not None else [1.0] * len(self.members)
        self.combine = combine
        self.freeze()
        self.eval()

    def __len__(self) -> int:
        return len(self.members)

    def __bool__(self) -> bool:  # a Module is a dict
        return bool(self.members)

    def __call__(self, tokens: mx.array, mask: mx.array) -> mx.array:
        """(B, T) -> float32 logits as the members give them: (B, C) or (B, T, V)."""
        return self.mix(self.answers(tokens, mask))

    def answers(self, tokens: mx.array, mask: mx.array) -> list[mx.array]:
        """The logits of each member."""
        return [member(tokens, mask).astype(mx.float32) for member in self.members]

    def mix(self, answers: list[mx.array], weights: Sequence[Weight] | None = None) -> mx.array:
        """The combined logits; `weights` may be arrays that broadcast over the classes."""
        weights = self._weights if weights is None else weights
        if self.combine == "logits" or len(answers) == 1:
            return weighted_mean(answers, weights)
        return mx.log(mx.maximum(weighted_mean([mx.softmax(a, axis=-1) for a in answers], weights), 1e-30))

    def hash(self) -> str:
        """SHA-256 of every weight: the same before and after, or somebody trained the teachers."""
        digest = hashlib.sha256(repr((self._weights, self.combine)).encode())
        leaves: list[tuple[str, mx.array]] = tree_flatten(self.parameters())  # type: ignore[assignment]
        for name, leaf in sorted(leaves, key=lambda item: item[0]):
            digest.update(f"{name} {leaf.dtype} {leaf.shape}".encode())
            digest.update(np.array(leaf.reshape(-1).view(mx.uint8)).tobytes())
        return digest.hexdigest()


def weighted_mean(values: Sequence[mx.array], weights: Sequence[Weight]) -> mx.array:
    """Taken in one by one, so that the mean of equal values is that very value, bit for bit."""
    mean, total = values[0], weights[0]
    for value, weight in zip(values[1:], weights[1:], strict=True):
        total = total + weight
        mean = mean + (value - mean) * (weight / total)
    return mean


def add_residual_base(student: mx.array, members: mx.array, count: int) -> mx.array:
    """(n * mean + student) / (n + 1): what an ensemble says once the student has joined its `count` members."""
    return weighted_mean([members, student], [float(count), 1.0])


def true_class_confidence(*, answers: list[mx.array], targets: mx.array) -> list[mx.array]:
    """A router: each teacher counts by the probability that it gives the true class (Zhang et al. 2022)."""
    weights = []
    for logits in answers:
        log_p = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        weights.append(mx.exp(mx.take_along_axis(log_p, targets[..., None], axis=-1)) + 1e-6)  # (..., 1)
    return weights
