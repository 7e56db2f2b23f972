"""The distillation loss: a student learns from the targets and from the soft targets of its teachers."""

from collections.abc import Callable
from typing import Literal

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxlab.backend.ops.cross_entropy import kl_divergence, log_softmax
from mlxlab.data.batch import Batch, Task
from mlxlab.distillation.teacher_cache import top_k_log_probs
from mlxlab.distillation.teachers import SoftTargets, Teachers
from mlxlab.errors import ConfigError
from mlxlab.models.ensemble import Router
from mlxlab.schema.constraints import Fraction, Positive, Share
from mlxlab.training.device_batch import DeviceBatch
from mlxlab.training.losses import weighted_sum
from mlxlab.training.losses.loss import LossTerms, squared_error
from mlxlab.training.losses.task_loss import target_loss
from mlxlab.training.losses.weighted_sum import Coefficient, LinearCoefficient, coefficient_value


class DistillationLoss:
    """alpha * CE + (1 - alpha) * T^2 * KL(teacher || student) per target (Hinton et al. 2015).

    CE is the loss of the task, KL for several labels that of each label. In a regression they are the squared errors to
    the target and to the teacher's output; temperature, T^2 and divergence do not apply. Without teachers it is the
    loss of the task, bit for bit. Logs `train/cross_entropy` and `train/kl` (whatever the divergence), of a regression
    `train/squared_error` and `train/teacher_squared_error`.

    Args:
        alpha: weight of the loss of the task; 1 is that alone. A number, or a LinearCoefficient.
        temperature: T, which divides the logits of teacher and student. A number, or a LinearCoefficient.
        scale_by_t2: multiply the divergence by T^2, so that its gradient has the same size at any temperature.
        divergence: forward is KL(teacher || student), reverse KL(student || teacher), jensen_shannon the mean KL of
            both to their mixture.
        label_smoothing: part of the target spread over all classes, in the cross-entropy; 0 for a regression.
        router: weights the teachers example by example, by their classes; null uses `teacher_weights`.

    Raises:
        ConfigError: a task without classes has a router.
    """

    def __init__(
        self,
        alpha: Fraction | LinearCoefficient,
        temperature: Positive | LinearCoefficient,
        scale_by_t2: bool,
        divergence: Literal["forward", "reverse", "jensen_shannon"],
        label_smoothing: Share,
        router: Router | None,
        *,
        loaded_teachers: Teachers,
        task: Task,
    ) -> None:
        self.teachers = loaded_teachers
        self.router = router
        self.coefficients: dict[str, Coefficient] = {"alpha": alpha, "temperature": temperature}
        self.kind = task.kind
        self.divergence = divergence
        self.label_smoothing = label_smoothing
        self.compute_target_loss = target_loss(task.kind, label_smoothing)
        self.scale_by_t2 = scale_by_t2 and task.kind != "regression"
        self.terms = ("cross_entropy", "kl")
        if task.kind == "regression":
            self.terms = ("squared_error", "teacher_squared_error")
        self._queries_teachers = bool(loaded_teachers) and alpha != 1
        if router is not None and task.kind in ("multi_label", "regression"):
            raise ConfigError(
                f"trainer.loss.router: expected null for the task {task.kind}: it reads classes"
            )
        if router is not None and loaded_teachers and not loaded_teachers.ensemble:
            raise ConfigError("trainer.loss.router: expected a model as teacher")

    def __call__(self, model: nn.Module, batch: DeviceBatch) -> LossTerms:
        logits = self.teachers.add_residual_base(model(batch.tokens, batch.segment_ids), batch)
        target_values = self.compute_target_loss(logits, batch.targets)
        if not self._queries_teachers:
            return LossTerms(target_values, {self.terms[0]: target_values})
        soft_targets = self.teachers.soft_targets(batch, self.router)
        alpha, temperature = (
            coefficient_value(value, name, batch) for name, value in self.coefficients.items()
        )
        divergence = self._divergence(
            soft_targets, logits, temperature, target_values, batch.targets
        )
        scale = temperature * temperature if self.scale_by_t2 else 1.0
        total = alpha * target_values + (1 - alpha) * scale * divergence
        return LossTerms(total, dict(zip(self.terms, (target_values, divergence), strict=True)))

    def annotate(self, batch: Batch, fraction_done: float | None) -> dict[str, np.ndarray]:
        arrays = weighted_sum.coefficient_arrays(self.coefficients, batch, fraction_done)
        if not self._queries_teachers:
            return arrays
        return arrays | self.teachers.cached(batch, self.router)

    def flush(self) -> None:
        if self.teachers.cache is not None:
            self.teachers.cache.flush()

    def _divergence(
        self,
        soft_targets: SoftTargets,
        logits: mx.array,
        temperature: float | mx.array,
        target_values: mx.array,
        targets: mx.array,
    ) -> mx.array:
        """Between the student's logits and the teachers' per target, not multiplied by T^2."""
        logits = logits.astype(mx.float32)
        if self.kind == "regression":
            return squared_error(logits, soft_targets.values.squeeze(-1))
        divisor = temperature
        if isinstance(divisor, mx.array):
            divisor = divisor[..., None]
        if self.kind == "multi_label":
            # Sigmoid is softmax over the logit and 0.
            labels, logits = (
                mx.stack([x, mx.zeros_like(x)], axis=-1) for x in (soft_targets.values, logits)
            )
            return soft_target_divergence(SoftTargets(labels), logits, divisor, self.divergence)
        log_sum_exp = None
        if not self.label_smoothing:  # then it can be recovered from the cross-entropy
            log_sum_exp = target_values + mx.take_along_axis(
                logits, targets[..., None], axis=-1
            ).squeeze(-1)
        return soft_target_divergence(soft_targets, logits, divisor, self.divergence, log_sum_exp)


def soft_target_divergence(
    targets: SoftTargets,
    logits: mx.array,
    temperature: mx.array | float,
    kind: str,
    log_sum_exp: mx.array | None = None,
) -> mx.array:
    """Divergence (...) between soft targets and the student's logits (..., C), not multiplied by T^2.

    `kind` is a key of `DIVERGENCES`; an array of temperatures broadcasts over the logits. `log_sum_exp` is that of the
    logits (...), if it is already known.
    """
    teacher = targets.values
    student = logits
    if targets.classes is not None:
        # The probability m of the n classes of the tail counts as spread evenly: log m + (T - 1) log n.
        num_tail = mx.array(float(logits.shape[-1] - targets.classes.shape[-1]))
        student = top_k_log_probs(logits, targets.classes, log_sum_exp)
        spread = (temperature - 1) * mx.log(num_tail)
        teacher, student = (
            mx.concatenate([x[..., :-1], x[..., -1:] + spread], axis=-1) for x in (teacher, student)
        )
    if kind == "forward" and isinstance(temperature, float):
        return kl_divergence(teacher, student, temperature)
    return DIVERGENCES[kind](teacher / temperature, student / temperature)


def _reverse(teacher: mx.array, student: mx.array) -> mx.array:
    log_p = log_softmax(teacher)
    log_q = log_softmax(student)
    return (mx.exp(log_q) * (log_q - log_p)).sum(axis=-1)


def _jensen_shannon(teacher: mx.array, student: mx.array) -> mx.array:
    log_p = log_softmax(teacher)
    log_q = log_softmax(student)
    log_m = mx.logaddexp(log_p, log_q) - mx.log(mx.array(2.0))
    return (mx.exp(log_p) * (log_p - log_m) + mx.exp(log_q) * (log_q - log_m)).sum(axis=-1) / 2


# Softened logits (teacher, student), each (..., C), -> (...)
DIVERGENCES: dict[str, Callable[[mx.array, mx.array], mx.array]] = {
    "forward": kl_divergence,
    "reverse": _reverse,
    "jensen_shannon": _jensen_shannon,
}
