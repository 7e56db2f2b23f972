"""Distillation: a student learns from targets, and from what its teachers say about them."""

from typing import Literal

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxlab.constraints import Fraction, Positive, Share
from mlxlab.data.batch import Batch
from mlxlab.distillation.divergence import soft_target_divergence
from mlxlab.distillation.feature_matching import add_projections, capture_calls, feature_matching_loss, read_pairs
from mlxlab.distillation.teachers import Teachers
from mlxlab.errors import ConfigError
from mlxlab.models.ensemble import Router
from mlxlab.training.device_batch import DeviceBatch
from mlxlab.training.losses.coefficient_schedule import LinearCoefficient
from mlxlab.training.losses.loss import LossTerms, cross_entropy


class DistillationLoss:
    """alpha * CE + (1 - alpha) * T^2 * KL(teacher || student), per target (Hinton et al. 2015).

    Args:
        alpha: share of the cross-entropy; 1 is cross-entropy alone. A number, or a ramp over the run.
        temperature: T, by which the logits of both are divided before they are compared. A number, or a ramp.
        t2_scale: times T^2, so that the gradient keeps its size at any temperature.
        measure: forward is KL(teacher || student), reverse KL(student || teacher), jensen_shannon the mean of their
            distances to the middle; mse is of logits, without temperature.
        label_smoothing: of the cross-entropy.
        match: layers that are to look like layers of the first teacher: `[{student: name, teacher: name, weight: 1}]`.
        router: weighs the teachers example by example; null weighs them by trainer.teacher_weights.
    """

    def __init__(
        self,
        alpha: Fraction | LinearCoefficient,
        temperature: Positive | LinearCoefficient,
        t2_scale: bool,
        measure: Literal["forward", "reverse", "jensen_shannon", "mse"],
        label_smoothing: Share,
        match: list[dict[str, str | float]],
        router: Router | None,
        *,
        taught_by: Teachers,
    ) -> None:
        self.settings: dict[str, float | LinearCoefficient] = {"alpha": alpha, "temperature": temperature}
        self.t2_scale, self.measure, self.label_smoothing = t2_scale, measure, label_smoothing
        self.router, self.teachers = router, taught_by
        self.pairs = read_pairs(match) if taught_by else []
        self.targets_alone = not taught_by or (alpha == 1 and not self.pairs)
        lossy = taught_by.cache is not None and taught_by.cache.top_k > 0
        if (self.pairs and taught_by.cache is not None) or (measure == "mse" and lossy):
            key = "match" if self.pairs else "measure=mse"
            raise ConfigError(f"trainer.loss.{key}: not kept by trainer.teacher_cache; leave out one of the two")

    def __call__(self, model: nn.Module, batch: DeviceBatch) -> LossTerms:
        with capture_calls(model, [pair.student for pair in self.pairs]) as mine:
            logits = self.teachers.with_those_beneath(model(batch.tokens, batch.mask), batch)
        ce = cross_entropy(logits, batch.targets, self.label_smoothing)
        if self.targets_alone:
            return LossTerms(ce, {"ce": ce})
        with capture_calls(self.teachers.first, [pair.teacher for pair in self.pairs]) as theirs:
            answer = self.teachers.answer(batch, self.router)
        alpha, temperature = (self._setting(name, batch) for name in ("alpha", "temperature"))
        logits = logits.astype(mx.float32)
        softened = temperature if isinstance(temperature, float) else temperature[..., None]
        kl = soft_target_divergence(answer, logits, softened, self.measure, self._total(ce, logits, batch))
        scale = temperature * temperature if self.t2_scale and self.measure != "mse" else 1.0
        values = alpha * ce + (1 - alpha) * scale * kl
        if not self.pairs:
            return LossTerms(values, {"ce": ce, "kl": kl})
        apart = feature_matching_loss(model, self.pairs, mine, theirs, batch)
        return LossTerms(values + apart, {"ce": ce, "kl": kl, "match": apart})

    def attach(self, model: nn.Module, seed: int) -> None:
        """Before training: the student gets the projections that `match` needs."""
        if self.pairs:
            add_projections(model, self.teachers.first, self.pairs, seed)

    def prepare(self, batch: Batch, progress: float | None) -> dict[str, np.ndarray]:
        """What goes along with a batch: the point of each ramp, and what the teachers said about it before."""
        ramps = {
            name: ramp.rows(batch, progress)
            for name, ramp in self.settings.items()
            if isinstance(ramp, LinearCoefficient)
        }
        return ramps if self.targets_alone else ramps | self.teachers.extra(batch, self.router)

    def _total(self, ce: mx.array, logits: mx.array, batch: DeviceBatch) -> mx.array | None:
        """Log-sum-exp of the logits, which the cross-entropy has computed already."""
        if self.label_smoothing:
            return None
        return ce + mx.take_along_axis(logits, batch.targets[..., None], axis=-1).squeeze(-1)

    def _setting(self, name: str, batch: DeviceBatch) -> float | mx.array:
        """A number, or the point of a ramp as an array that broadcasts over the targets."""
        value = self.settings[name]
        if isinstance(value, LinearCoefficient):
            return batch.extra[name].reshape(-1, *[1] * (batch.targets.ndim - 1))
        return float(value)
