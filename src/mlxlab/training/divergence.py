"""How far the student is from its teachers, per target, in float32."""

from collections.abc import Callable
from typing import NamedTuple

import mlx.core as mx

TINY = 1e-7  # the least probability of what is not among the top k: float32 sums know no less


class Answer(NamedTuple):
    """What the teachers say: logits of every class, or log-probabilities of the likeliest and of all others together.

    In the second case `values` is (..., k + 1), the others last, and `classes` (..., k) says which the likeliest are.
    """

    values: mx.array
    classes: mx.array | None = None


def between(answer: Answer, logits: mx.array, temperature: mx.array | float, measure: str) -> mx.array:
    """The divergence named `measure` of a student's `logits` (..., C) from the answer: (...), before any T^2."""
    if measure == "mse":
        return mx.square(logits - answer.values).mean(axis=-1)
    teacher, student = answer.values, logits
    if answer.classes is not None:
        others = logits.shape[-1] - answer.classes.shape[-1]
        teacher = _soften_others(teacher, temperature, others)
        student = _soften_others(pick(logits, answer.classes), temperature, others)
    return MEASURES[measure](log_softmax(teacher / temperature), log_softmax(student / temperature))


def pick(logits: mx.array, classes: mx.array) -> mx.array:
    """Log-probabilities of `classes` (..., k), and last that of all others together: (..., k + 1)."""
    chosen = mx.take_along_axis(logits, classes, axis=-1) - mx.logsumexp(logits, axis=-1, keepdims=True)
    rest = 1 - mx.exp(chosen).sum(axis=-1, keepdims=True)
    return mx.concatenate([chosen, mx.log(mx.maximum(rest, TINY))], axis=-1)


def _soften_others(values: mx.array, temperature: mx.array | float, others: int) -> mx.array:
    """At a temperature T the others weigh as that many equal classes would: log m + (T - 1) log n, divided by T."""
    extra = (temperature - 1) * mx.log(mx.array(float(others)))
    return mx.concatenate([values[..., :-1], values[..., -1:] + extra], axis=-1)


def log_softmax(x: mx.array) -> mx.array:
    return x - mx.logsumexp(x, axis=-1, keepdims=True)


def _forward(p: mx.array, q: mx.array) -> mx.array:
    return (mx.exp(p) * (p - q)).sum(axis=-1)


def _reverse(p: mx.array, q: mx.array) -> mx.array:
    return _forward(q, p)


def _jensen_shannon(p: mx.array, q: mx.array) -> mx.array:
    middle = mx.logaddexp(p, q) - mx.log(mx.array(2.0))
    return (_forward(p, middle) + _forward(q, middle)) / 2


MEASURES: dict[str, Callable[[mx.array, mx.array], mx.array]] = {  # of (teacher, student), both log-probabilities
    "forward": _forward,
    "reverse": _reverse,
    "jensen_shannon": _jensen_shannon,
}
