"""Divergences between the soft targets of the teachers and the logits of the student, per target, in float32."""

from collections.abc import Callable
from typing import NamedTuple

import mlx.core as mx

from mlxlab.ops.kl_divergence import divergence, log_softmax

MIN_PROBABILITY = 1e-7  # of the tail, all classes outside the top k: the resolution of a float32 sum


class SoftTargets(NamedTuple):
    """Logits (..., C) of the teachers; or, with `classes` (..., k), log-probabilities of these and of the tail."""

    values: mx.array  # (..., C), or (..., k + 1): the last is all other classes together
    classes: mx.array | None = None


def soft_target_divergence(
    targets: SoftTargets,
    logits: mx.array,
    temperature: mx.array | float,
    kind: str,
    log_sum_exp: mx.array | None = None,
) -> mx.array:
    """Divergence (...) between soft targets and the student's logits (..., C), not multiplied by T^2.

    `kind` is a key of `DIVERGENCES`, or mse (of logits, without temperature); an array of temperatures broadcasts over
    the logits. `log_sum_exp` is that of the logits (...), if it is already known.
    """
    teacher, student = targets.values, logits
    if kind == "mse":
        return mx.square(student - teacher).mean(axis=-1)
    if targets.classes is not None:
        # The probability m of the n classes of the tail counts as spread evenly: log m + (T - 1) log n.
        num_tail = mx.array(float(logits.shape[-1] - targets.classes.shape[-1]))
        student = top_k_log_probs(logits, targets.classes, log_sum_exp)
        spread = (temperature - 1) * mx.log(num_tail)
        teacher, student = (mx.concatenate([x[..., :-1], x[..., -1:] + spread], axis=-1) for x in (teacher, student))
    if kind == "forward" and isinstance(temperature, float):
        return divergence(teacher, student, temperature)
    return DIVERGENCES[kind](teacher / temperature, student / temperature)


def top_k_log_probs(logits: mx.array, classes: mx.array, log_sum_exp: mx.array | None = None) -> mx.array:
    """Log-probabilities of `classes` (..., k), then that of all other classes together: (..., k + 1)."""
    log_sum_exp = mx.logsumexp(logits, axis=-1) if log_sum_exp is None else log_sum_exp
    log_p = mx.take_along_axis(logits, classes, axis=-1) - log_sum_exp[..., None]
    tail = 1 - mx.exp(log_p).sum(axis=-1, keepdims=True)
    return mx.concatenate([log_p, mx.log(mx.maximum(tail, MIN_PROBABILITY))], axis=-1)


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
