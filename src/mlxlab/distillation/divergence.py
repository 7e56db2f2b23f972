"""How far the student is from its teachers, per target, in float32."""

from collections.abc import Callable
from typing import NamedTuple

import mlx.core as mx

from mlxlab.ops.kl_divergence import divergence, log_softmax

TINY = 1e-7  # the least probability of what is not among the top k: float32 sums know no less


class SoftTargets(NamedTuple):
    """What the teachers say: logits of every class, or log-probabilities of the likeliest and of all others together.

    In the second case `values` is (..., k + 1), the others last, and `classes` (..., k) says which the likeliest are.
    """

    values: mx.array
    classes: mx.array | None = None


def soft_target_divergence(
    targets: SoftTargets, logits: mx.array, temperature: mx.array | float, kind: str, total: mx.array | None = None
) -> mx.array:
    """The divergence named `measure` of a student's `logits` (..., C) from the answer: (...), before any T^2.

    Args:
        temperature: a number, or an array that broadcasts over the logits.
        total: log-sum-exp of the logits (...), if it is known already.
    """
    if kind == "mse":
        return mx.square(logits - targets.values).mean(axis=-1)
    teacher, student = targets.values, logits
    if targets.classes is not None:
        others = logits.shape[-1] - targets.classes.shape[-1]
        teacher = _soften_others(teacher, temperature, others)
        student = _soften_others(top_k_log_probs(logits, targets.classes, total), temperature, others)
    if kind == "forward" and isinstance(temperature, float):
        return divergence(teacher, student, temperature)
    return DIVERGENCES[kind](teacher / temperature, student / temperature)


def top_k_log_probs(logits: mx.array, classes: mx.array, total: mx.array | None = None) -> mx.array:
    """Log-probabilities of `classes` (..., k), and last that of all others together: (..., k + 1)."""
    total = mx.logsumexp(logits, axis=-1) if total is None else total
    chosen = mx.take_along_axis(logits, classes, axis=-1) - total[..., None]
    rest = 1 - mx.exp(chosen).sum(axis=-1, keepdims=True)
    return mx.concatenate([chosen, mx.log(mx.maximum(rest, TINY))], axis=-1)


def _soften_others(values: mx.array, temperature: mx.array | float, others: int) -> mx.array:
    """At a temperature T the others weigh as that many equal classes would: log m + (T - 1) log n, divided by T."""
    extra = (temperature - 1) * mx.log(mx.array(float(others)))
    return mx.concatenate([values[..., :-1], values[..., -1:] + extra], axis=-1)


def _reverse(teacher: mx.array, student: mx.array) -> mx.array:
    log_p, log_q = log_softmax(teacher), log_softmax(student)
    return (mx.exp(log_q) * (log_q - log_p)).sum(axis=-1)


def _jensen_shannon(teacher: mx.array, student: mx.array) -> mx.array:
    log_p, log_q = log_softmax(teacher), log_softmax(student)
    log_m = mx.logaddexp(log_p, log_q) - mx.log(mx.array(2.0))
    return (mx.exp(log_p) * (log_p - log_m) + mx.exp(log_q) * (log_q - log_m)).sum(axis=-1) / 2


DIVERGENCES: dict[str, Callable[[mx.array, mx.array], mx.array]] = {  # of softened logits: (teacher, student) -> (...)
    "forward": divergence,
    "reverse": _reverse,
    "jensen_shannon": _jensen_shannon,
}
