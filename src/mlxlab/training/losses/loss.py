"""Losses: a function of (model, batch) that returns one float32 value per target, shaped like `batch.targets`.

Nothing is averaged here. The step sums the values by `batch.weights` and divides once, so that accumulation, short
batches and several processes are exact.
"""

from typing import Annotated, Literal, NamedTuple, Protocol

import mlx.core as mx
import mlx.nn as nn

from mlxlab.constraints import Ge, Lt, NonNegative, Positive
from mlxlab.errors import ConfigError
from mlxlab.ops.cross_entropy import cross_entropy as cross_entropy
from mlxlab.training.device_batch import DeviceBatch


class LossTerms(NamedTuple):
    """A loss and what it is made of, by name: all shaped like `batch.targets`."""

    values: mx.array
    parts: dict[str, mx.array]


class Loss(Protocol):
    def __call__(self, model: nn.Module, batch: DeviceBatch) -> "mx.array | LossTerms": ...


class CrossEntropyLoss:
    """Cross-entropy of the target, mixed with the mean over all classes by `label_smoothing` (Szegedy et al. 2016).

    Args:
        label_smoothing: share of the target spread over all classes; training only, evaluation never sees it.
    """

    def __init__(self, label_smoothing: Annotated[float, Ge(0), Lt(1)]) -> None:
        self.label_smoothing = label_smoothing

    def __call__(self, model: nn.Module, batch: DeviceBatch) -> mx.array:
        return cross_entropy(model(batch.tokens, batch.mask), batch.targets, self.label_smoothing)


class WeightedCrossEntropyLoss:
    """Cross-entropy times the weight of the target's class.

    Args:
        class_weights: one weight per class; `balanced` is n / (C n_c) of the training rows.
        label_smoothing: as in cross_entropy.
    """

    def __init__(
        self,
        class_weights: list[Positive] | Literal["balanced"],
        label_smoothing: Annotated[float, Ge(0), Lt(1)],
        *,
        class_counts: list[int],
    ) -> None:
        weights = balanced_class_weights(class_counts) if class_weights == "balanced" else list(class_weights)
        if len(weights) != len(class_counts):
            raise ConfigError(f"trainer.loss.class_weights: {len(weights)} weights for {len(class_counts)} classes")
        self.class_weights = mx.array(weights, dtype=mx.float32)
        self.label_smoothing = label_smoothing

    def __call__(self, model: nn.Module, batch: DeviceBatch) -> mx.array:
        values = cross_entropy(model(batch.tokens, batch.mask), batch.targets, self.label_smoothing)
        return values * self.class_weights[batch.targets]


class FocalLoss:
    """-a (1 - p)^gamma log p, p being the probability of the target (Lin et al. 2017).

    Args:
        alpha: weight of class 1, 1 - alpha that of class 0 (two classes only); null weighs all alike.
        gamma: how much the well-classified examples are turned down; 0 is cross-entropy.
        label_smoothing: share of the mean over all classes mixed in, as in cross_entropy.
    """

    def __init__(
        self,
        alpha: Annotated[float, Ge(0), Lt(1)] | None,
        gamma: NonNegative,
        label_smoothing: Annotated[float, Ge(0), Lt(1)],
    ) -> None:
        self.alpha = alpha
        self.gamma = gamma
        self.label_smoothing = label_smoothing

    def __call__(self, model: nn.Module, batch: DeviceBatch) -> mx.array:
        logits = model(batch.tokens, batch.mask).astype(mx.float32)
        if self.alpha is not None and logits.shape[-1] != 2:
            raise ConfigError(f"trainer.loss.alpha weighs two classes, the task has {logits.shape[-1]}; use null")
        log_p = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        target = mx.take_along_axis(log_p, batch.targets[..., None], axis=-1).squeeze(-1)
        values = -mx.power(1 - mx.exp(target), self.gamma) * target
        if self.alpha is not None:
            values = values * mx.where(batch.targets == 1, self.alpha, 1 - self.alpha)
        return (1 - self.label_smoothing) * values - self.label_smoothing * log_p.mean(axis=-1)


def balanced_class_weights(counts: list[int]) -> list[float]:
    """n / (C n_c): the weights that make every class count the same."""
    return [sum(counts) / (len(counts) * max(count, 1)) for count in counts]
