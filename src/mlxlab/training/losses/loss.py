"""The `Loss` protocol, the plain losses, and that of a model whose weights are sharded.

A loss returns one float32 value per target and averages nothing. The step sums the values by `batch.loss_weights` and
divides once, so that gradient accumulation, short batches and several processes are exact.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxlab.backend.ops.cross_entropy import binary_cross_entropy, cross_entropy
from mlxlab.data.batch import FOLDS, Batch
from mlxlab.errors import ConfigError
from mlxlab.schema.constraints import NonNegative, Positive, Share
from mlxlab.training.device_batch import DeviceBatch
from mlxlab.training.distributed.sharding import Sharding


class LossTerms(NamedTuple):
    """The value to minimise and its terms by name, all float32 and shaped like `batch.targets`.

    The mean of each term is logged as `train/<name>`.
    """

    total: mx.array
    terms: dict[str, mx.array]


LossFunction = Callable[[nn.Module, DeviceBatch], LossTerms]


class Loss(Protocol):
    """The function that a run minimises. The trainer calls all three methods of every loss.

    A loss without state inherits from `Loss` and defines `__call__` only; the two hooks then do nothing. A loss that
    needs the hooks defines all three methods and does not inherit.
    """

    def __call__(self, model: nn.Module, batch: DeviceBatch) -> LossTerms:
        """The loss of every target. Runs inside the gradient and may be compiled: a pure function of its arguments."""
        ...

    def annotate(self, batch: Batch, fraction_done: float | None) -> dict[str, np.ndarray]:
        """Arrays (B, ...) that `__call__` will find in `batch.aux`, computed on the host.

        Args:
            fraction_done: of the run, in [0, 1); None where the length of the run is unknown.
        """
        return {}

    def flush(self) -> None:
        """Makes durable what `annotate` has returned so far, so that a resumed run gets the same arrays.

        Called before every checkpoint and at the end of the run.
        """
        return


class LogitLoss(Loss):
    """A loss that is a function of logits and targets alone, target by target. A subclass defines `of_logits`."""

    @abstractmethod
    def of_logits(self, logits: mx.array, targets: mx.array) -> mx.array:
        """Logits (..., C) and targets (...) to losses (...), float32."""

    def __call__(self, model: nn.Module, batch: DeviceBatch) -> LossTerms:
        logits = model(batch.tokens, batch.segment_ids)
        if FOLDS in batch.aux:
            return LossTerms(self._of_folds(logits, batch.targets, batch.aux[FOLDS]), {})
        return LossTerms(self.of_logits(logits, batch.targets), {})

    def _of_folds(self, logits: mx.array, targets: mx.array, folds: mx.array) -> mx.array:
        """The mean loss of each target over the networks that learn from its row, in the shape of `targets`.

        Args:
            logits: (F, K, B, C) of K members in each of F folds.
            folds: (B,) the fold that does not learn from the row.
        """
        num_folds, members, rows, classes = logits.shape
        shape = (num_folds, members, *targets.shape)
        repeated = mx.broadcast_to(targets, shape).reshape(-1, *targets.shape[1:])
        losses = self.of_logits(logits.reshape(-1, classes), repeated).reshape(shape).mean(axis=1)
        learns = folds != mx.arange(num_folds)[:, None]  # (F, B)
        learns = learns.reshape(num_folds, rows, *[1] * (targets.ndim - 1))
        return mx.where(learns, losses, 0).sum(axis=0) / (num_folds - 1)


@dataclass
class CrossEntropyLoss(LogitLoss):
    """Cross-entropy with label smoothing (Szegedy et al. 2016).

    Args:
        label_smoothing: fraction of the target spread over all classes; in training only, never in evaluation.
    """

    label_smoothing: Share

    def of_logits(self, logits: mx.array, targets: mx.array) -> mx.array:
        return cross_entropy(logits, targets, self.label_smoothing)


class WeightedCrossEntropyLoss(LogitLoss):
    """Cross-entropy multiplied by the weight of the target's class.

    The sum is divided by the number of targets, where `torch.nn.CrossEntropyLoss` divides by the sum of their weights.
    The weight of the target's class also multiplies the smoothing, where torch weighs the part of each class by itself.

    Args:
        class_weights: one weight per class; `balanced` is n / (C n_c), counted in the training rows.
        label_smoothing: as in cross_entropy.

    Raises:
        ConfigError: the number of weights is not the number of classes.
    """

    def __init__(
        self,
        class_weights: list[Positive] | Literal["balanced"],
        label_smoothing: Share,
        *,
        class_counts: list[int],
    ) -> None:
        self.class_weights = weights_of(class_weights, class_counts, "class_weights")
        self.label_smoothing = label_smoothing

    def of_logits(self, logits: mx.array, targets: mx.array) -> mx.array:
        return cross_entropy(logits, targets, self.label_smoothing) * self.class_weights[targets]


def weights_of(
    weights: list[Positive] | Literal["balanced"], class_counts: list[int], key: str
) -> mx.array:
    """(C,) the weights of classes or labels; if `balanced`, all have the same total weight.

    Raises:
        ConfigError: the number of weights is not the number of classes.
    """
    if weights == "balanced":
        total = sum(class_counts)
        weights = [total / (len(class_counts) * max(count, 1)) for count in class_counts]
    if len(weights) != len(class_counts):
        expected = f"expected {len(class_counts)} weights, one per class, got {len(weights)}"
        raise ConfigError(f"trainer.loss.{key}: {expected}")
    return mx.array(weights, dtype=mx.float32)


@dataclass
class FocalLoss(LogitLoss):
    """Focal loss (Lin et al. 2017): -alpha (1 - p)^gamma log p, where p is the probability of the target.

    Args:
        alpha: weight of class 1, 1 - alpha that of class 0 (two classes only); null weighs all classes equally.
        gamma: focusing parameter: the higher, the less well-classified examples count; 0 is cross-entropy.
        label_smoothing: weight of the mean over all classes, as in cross_entropy.
    """

    alpha: Share | None
    gamma: NonNegative
    label_smoothing: Share

    def of_logits(self, logits: mx.array, targets: mx.array) -> mx.array:
        logits = logits.astype(mx.float32)
        if self.alpha is not None and logits.shape[-1] != 2:
            raise ConfigError(
                f"trainer.loss.alpha: expected null for {logits.shape[-1]} classes, got {self.alpha}"
            )
        log_p = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        target = mx.take_along_axis(log_p, targets[..., None], axis=-1).squeeze(-1)
        values = -target
        if self.gamma:
            # The bound is for p = 1, where the slope of (1 - p)^gamma is infinite if gamma < 1; inf * 0 is NaN.
            values = values * mx.power(mx.maximum(1 - mx.exp(target), 1e-30), self.gamma)
        if self.alpha is not None:
            values = values * mx.where(targets == 1, self.alpha, 1 - self.alpha)
        return (1 - self.label_smoothing) * values - self.label_smoothing * log_p.mean(axis=-1)


class BinaryCrossEntropyLoss(LogitLoss):
    """Binary cross-entropy of each label, -w y log p - (1 - y) log(1 - p).

    Args:
        positive_weights: w, one per label, by which a label that holds counts; `balanced` is n / (L n_l) of n positives
            in the training rows, n_l of them of the label; null is 1.
        label_smoothing: e, which makes a target y into (1 - e) y + e / 2; in training only.

    Raises:
        ConfigError: the number of weights is not the number of labels.
    """

    def __init__(
        self,
        positive_weights: list[Positive] | Literal["balanced"] | None,
        label_smoothing: Share,
        *,
        class_counts: list[int],
    ) -> None:
        self.positive_weights: mx.array | None = None
        if positive_weights is not None:
            self.positive_weights = weights_of(positive_weights, class_counts, "positive_weights")
        self.label_smoothing = label_smoothing

    def of_logits(self, logits: mx.array, targets: mx.array) -> mx.array:
        return binary_cross_entropy(logits, targets, self.label_smoothing, self.positive_weights)


class SquaredErrorLoss(LogitLoss):
    """Squared error of each target, in standard deviations of the training rows."""

    def of_logits(self, logits: mx.array, targets: mx.array) -> mx.array:
        return squared_error(logits, targets)


@dataclass
class HuberLoss(LogitLoss):
    """Huber loss (Huber 1964): e^2 / 2 for errors up to delta, delta (|e| - delta / 2) beyond.

    Args:
        delta: the error, in standard deviations of the target, from which on the loss is linear.
    """

    delta: Positive

    def of_logits(self, logits: mx.array, targets: mx.array) -> mx.array:
        return huber(logits, targets, self.delta)


def squared_error(outputs: mx.array, targets: mx.array) -> mx.array:
    """Outputs (B, 1) of a model and targets (B,) -> (B,), in float32."""
    return mx.square(outputs.astype(mx.float32).squeeze(-1) - targets)


def huber(outputs: mx.array, targets: mx.array, delta: float) -> mx.array:
    """Outputs (B, 1) of a model and targets (B,) -> (B,), in float32."""
    error = mx.abs(outputs.astype(mx.float32).squeeze(-1) - targets)
    small = mx.minimum(error, delta)
    return small * (error - 0.5 * small)


@dataclass(frozen=True)
class ShardedLoss:
    """Another loss, which finds whole weights in the model: they are gathered where they are needed."""

    loss: LossFunction
    sharding: Sharding

    def __call__(self, model: nn.Module, batch: DeviceBatch) -> LossTerms:
        with self.sharding.gathered(model):
            return self.loss(model, batch)
