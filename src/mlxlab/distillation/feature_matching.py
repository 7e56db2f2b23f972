"""Layers of the student that are to look like layers of a teacher: states through a learned projection, attention maps.

Named as in a checkpoint: `backbone.layers.1` is what that block gives, `backbone.layers.1.attention` where it looks.
"""

import difflib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn

from mlxlab.errors import ConfigError
from mlxlab.models.layers import MASK_VALUE, Attention, apply_rope
from mlxlab.models.model import PROJECTIONS
from mlxlab.training.device_batch import DeviceBatch


class LayerPair(NamedTuple):
    student: str
    teacher: str
    weight: float


class LayerCall(NamedTuple):
    """One call of a layer."""

    layer: Any
    arguments: tuple[Any, ...]
    result: mx.array


class Projections(nn.Module):
    """A matrix for each pair: (..., width of the student) -> (..., width of the teacher)."""

    def __init__(self, widths: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.layers = [nn.Linear(own, other, bias=False) for own, other in widths]


def read_pairs(match: Sequence[dict[str, Any]]) -> list[LayerPair]:
    """The nodes of `trainer.loss.feature_matching`; ConfigError names what one lacks or has too much."""
    pairs = []
    for place, node in enumerate(match):
        odd = [*({"student", "teacher"} - node.keys()), *(node.keys() - set(LayerPair._fields))]
        weight = node.get("weight", 1.0)
        if odd or not isinstance(weight, int | float) or not 0 < weight < math.inf:
            what = ", ".join(sorted(odd)) or f"weight={weight}"
            raise ConfigError(
                f"trainer.loss.feature_matching.{place}: {what}; expected"
                " {student: layer, teacher: layer, weight: number > 0}"
            )
        pairs.append(LayerPair(str(node["student"]), str(node["teacher"]), float(weight)))
    return pairs


def add_projections(student: nn.Module, teacher: nn.Module, pairs: Sequence[LayerPair], seed: int) -> None:
    """Gives the student the projections that `pairs` need, drawn by the seed."""
    tokens, mask = mx.zeros((1, 4), mx.int32), mx.ones((1, 4), mx.int32)
    with capture_calls(student, [pair.student for pair in pairs]) as mine:
        student(tokens, mask)
    with capture_calls(teacher, [pair.teacher for pair in pairs]) as theirs:
        teacher(tokens, mask)
    mx.random.seed(seed)
    widths = [(_width(mine[pair.student]), _width(theirs[pair.teacher])) for pair in pairs]
    student[PROJECTIONS] = Projections(widths)
    mx.eval(student[PROJECTIONS].parameters())


def feature_matching_loss(
    student: nn.Module,
    pairs: Sequence[LayerPair],
    mine: dict[str, LayerCall],
    theirs: dict[str, LayerCall],
    batch: DeviceBatch,
) -> mx.array:
    """How far the pairs are apart, weighted, per target: squared error of states, KL of attention maps."""
    total = mx.zeros(batch.targets.shape)
    for pair, projection in zip(pairs, student[PROJECTIONS].layers, strict=True):
        own, other = mine[pair.student], theirs[pair.teacher]
        if isinstance(own.layer, Attention):
            looks, expected = attention_map(own), attention_map(other)
            far = (expected * (mx.log(expected + 1e-9) - mx.log(looks + 1e-9))).sum(axis=-1)
        else:
            state = projection(own.result).astype(mx.float32)
            far = mx.square(state - other.result.astype(mx.float32)).mean(axis=-1)
        total = total + pair.weight * _per_target(far, batch)
    return total


def attention_map(call: LayerCall) -> mx.array:
    """Where each place looks, the mean of all heads: (B, T, T), each row a distribution."""
    layer, (x, mask, *_) = call.layer, call.arguments
    B, T, _ = x.shape
    q, k = (part(x).reshape(B, T, -1, layer.head_dim).transpose(0, 2, 1, 3) for part in (layer.query, layer.key))
    if layer.rope_theta is not None:
        q, k = apply_rope(q, layer.rope_theta), apply_rope(k, layer.rope_theta)
    scores = (q / math.sqrt(layer.head_dim)) @ mx.repeat(k, q.shape[1] // k.shape[1], axis=1).swapaxes(-1, -2)
    if isinstance(mask, str):
        places = mx.arange(T)
        mask = mx.where(places[:, None] >= places, 0.0, MASK_VALUE)
    return mx.softmax(scores.astype(mx.float32) + mask, axis=-1).mean(axis=1)


@contextmanager
def capture_calls(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, LayerCall]]:
    """Inside, the last call of each named layer is kept.

    Raises:
        ConfigError: the model has no such layer; says the nearest.
    """
    calls: dict[str, LayerCall] = {}
    places = [(name, *_find(model, name)) for name in dict.fromkeys(names)]
    before = [parent[key] for _, parent, key in places]
    try:
        # Outer layers last: one that is inside another is found in it as it was.
        for (name, parent, key), layer in zip(places, before, strict=True):
            parent[key] = _CallRecorder(layer, name, calls)
        yield calls
    finally:
        for (_, parent, key), layer in zip(places, before, strict=True):
            parent[key] = layer


class _CallRecorder:
    def __init__(self, layer: Any, name: str, calls: dict[str, LayerCall]) -> None:
        self._layer, self._name, self._calls = layer, name, calls

    def __call__(self, *arguments: Any, **named: Any) -> mx.array:
        result = self._layer(*arguments, **named)
        self._calls[self._name] = LayerCall(self._layer, arguments, result)
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)


def _find(model: nn.Module, name: str) -> tuple[Any, Any]:
    """What holds the layer, and under which key."""
    layers = [path for path, _ in model.named_modules() if path]
    if name not in layers:
        near = difflib.get_close_matches(name, layers, 1, cutoff=0)
        raise ConfigError(
            f"trainer.loss.feature_matching: there is no layer {name}" + (f"; did you mean {near[0]}?" if near else "")
        )
    *path, last = name.split(".")
    holder: Any = model
    for step in path:
        holder = holder[int(step)] if isinstance(holder, list) else holder[step]
    return holder, int(last) if isinstance(holder, list) else last


def _width(call: LayerCall) -> int:
    return 1 if isinstance(call.layer, Attention) else int(call.result.shape[-1])


def _per_target(values: mx.array, batch: DeviceBatch) -> mx.array:
    """Values of places (B, T) or rows (B,) for targets of either: the mean over a row's real places, or the row's."""
    if values.ndim > batch.targets.ndim:
        real = (batch.mask > 0).astype(mx.float32)
        return (values * real).sum(axis=1) / mx.maximum(real.sum(axis=1), 1)
    return values if values.ndim == batch.targets.ndim else values[:, None]
