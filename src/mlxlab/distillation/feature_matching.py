"""Feature matching: layers of the student learn to resemble layers of a teacher.

Blocks are compared by hidden states through a learned projection (FitNets, Romero et al. 2015), attention layers by
their attention maps (TinyBERT, Jiao et al. 2020).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, NotRequired, TypedDict

import mlx.core as mx
import mlx.nn as nn

from mlxlab.backend.ops.attention import SegmentMask, causal_mask
from mlxlab.errors import ConfigError
from mlxlab.models.initialization import uniform
from mlxlab.models.layers import Attention, intercept
from mlxlab.models.model import PROJECTIONS
from mlxlab.schema.constraints import Positive
from mlxlab.training.device_batch import DeviceBatch

_KEY = "trainer.loss.feature_matching"


class LayerPair(TypedDict):
    """Names of a student's and a teacher's layer, and the weight of their distance in the loss, by default 1."""

    student: str
    teacher: str
    weight: NotRequired[Positive]


class LayerCall(NamedTuple):
    layer: nn.Module
    arguments: tuple[Any, ...]
    output: mx.array


Calls = Mapping[str, LayerCall]  # the last call of each layer, by its name


def add_projections(
    student: nn.Module, teacher: nn.Module, pairs: Sequence[LayerPair], seed: int
) -> None:
    """Adds a matrix for each pair to the student, (..., its hidden size) -> (..., that of the teacher).

    They are U(+-1 / sqrt(hidden size of the student)), by seed. ConfigError if a layer does not exist or is not called,
    or an attention layer is paired with another kind.
    """
    tokens = segment_ids = mx.ones((1, 4), mx.int32)
    with capture_calls(student, [pair["student"] for pair in pairs]) as student_calls:
        student(tokens, segment_ids)
    with capture_calls(teacher, [pair["teacher"] for pair in pairs]) as teacher_calls:
        teacher(tokens, segment_ids)
    layers = []
    for index, pair in enumerate(pairs):
        for name, calls in ((pair["student"], student_calls), (pair["teacher"], teacher_calls)):
            if name not in calls:
                raise ConfigError(f"{_KEY}: {name} is never called, so it has no output to match")
        student_call = student_calls[pair["student"]]
        teacher_call = teacher_calls[pair["teacher"]]
        is_attention = isinstance(student_call.layer, Attention)
        if is_attention != isinstance(teacher_call.layer, Attention):
            names = f"{pair['student']} and {pair['teacher']}"
            raise ConfigError(f"{_KEY}: expected two attention layers or none, got {names}")
        # Attention maps need no projection.
        inputs = 1
        outputs = 1
        if not is_attention:
            inputs = student_call.output.shape[-1]
            outputs = teacher_call.output.shape[-1]
        layer = nn.Linear(inputs, outputs, bias=False)
        bound = 1 / math.sqrt(inputs)
        layer.weight = mx.array(uniform(seed, f"{PROJECTIONS}.{index}", layer.weight.shape, bound))
        layers.append(layer)
    student[PROJECTIONS] = {"layers": layers}


def feature_matching_loss(
    student: nn.Module,
    pairs: Sequence[LayerPair],
    student_calls: Calls,
    teacher_calls: Calls,
    batch: DeviceBatch,
    *,
    per_token: bool,
) -> mx.array:
    """Weighted distance of the pairs per target: mean squared error of hidden states, KL of attention maps.

    With `per_token` the targets are tokens; else those of a row all have the mean distance over its real tokens.
    """
    total = mx.zeros(batch.targets.shape)
    for pair, projection in zip(pairs, student[PROJECTIONS]["layers"], strict=True):
        student_call = student_calls[pair["student"]]
        teacher_call = teacher_calls[pair["teacher"]]
        if isinstance(student_call.layer, Attention):
            q = attention_map(student_call)
            p = attention_map(teacher_call)
            distance = (p * (mx.log(p + 1e-9) - mx.log(q + 1e-9))).sum(axis=-1)
        else:
            projected = projection(student_call.output).astype(mx.float32)
            distance = mx.square(projected - teacher_call.output.astype(mx.float32)).mean(axis=-1)
        if distance.ndim > 1 and not per_token:
            real = (batch.segment_ids > 0).astype(mx.float32)
            distance = (distance * real).sum(axis=1) / mx.maximum(real.sum(axis=1), 1)
        if distance.ndim < batch.targets.ndim:
            distance = distance[:, None]
        total = total + pair.get("weight", 1.0) * distance
    return total


@contextmanager
def capture_calls(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, LayerCall]]:
    """Records the last call of each named layer (`backbone.layers.1.attention`); ConfigError for an unknown name."""
    calls: dict[str, LayerCall] = {}
    if not names:
        yield calls
        return
    layers = {name: layer for name, layer in model.named_modules() if name}
    for name in names:
        if name not in layers:
            raise ConfigError(f"{_KEY}: there is no layer {name}")

    def recorded(name: str, kind: type[nn.Module]) -> Callable[..., mx.array]:
        def call(layer: nn.Module, *arguments: object) -> mx.array:
            output: mx.array = kind.__call__(layer, *arguments)
            calls[name] = LayerCall(layer, arguments, output)
            return output

        return call

    with intercept({name: layers[name] for name in names}, recorded):
        yield calls


def attention_map(call: LayerCall) -> mx.array:
    """Attention weights of a captured call, averaged over heads: (B, T, T), each row a distribution."""
    layer = call.layer
    x, mask, *_ = call.arguments
    T = x.shape[1]
    q, k = layer.queries_and_keys(x)
    scores = (q / math.sqrt(layer.head_dim)) @ mx.repeat(
        k, q.shape[1] // k.shape[1], axis=1
    ).swapaxes(-1, -2)
    if isinstance(mask, SegmentMask):
        mask = mask.bias
    if isinstance(mask, str):  # "causal"
        mask = causal_mask(T, T, mx.float32)
    return mx.softmax(scores.astype(mx.float32) + mask, axis=-1).mean(axis=1)
