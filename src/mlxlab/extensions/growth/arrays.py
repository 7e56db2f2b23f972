"""Arrays of a grown model, made of those of the model before: rows and columns by index, and new ones."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mlxlab.models.initialization import normal

EMBEDDING = re.compile(r"backbone\.(?:encoder\.)?embedding\.(?:base\.)?weight")


@dataclass(frozen=True)
class Gather:
    """Entries along an axis, by their old index; -1 is a new entry. The scales, one per entry, are 1 where None.

    `gradient_scale` is the ratio of the gradient of an entry to that of its source, where the outputs are equal.
    """

    axis: int
    index: np.ndarray
    scale: np.ndarray | None = None
    gradient_scale: np.ndarray | None = None


@dataclass(frozen=True)
class Source:
    """The array of the model before that an array is made of."""

    path: str
    gathers: tuple[Gather, ...] = ()


Sources = dict[str, Source]  # by new path; arrays without a source are new


def has_classifier(arrays: Mapping[str, mx.array]) -> bool:
    """Whether the head is a classifier: the output layer of a language model has no bias, and a row for each token."""
    out = arrays.get("head.out.weight")
    embeddings = [array for path, array in arrays.items() if EMBEDDING.fullmatch(path)]
    return "head.out.bias" in arrays or (out is not None and len(out) != len(embeddings[0]))


def gather(array: mx.array, source: Source, fill: mx.array | None = None) -> mx.array:
    """The weights of the new array; its new entries are those of `fill`, or 0."""
    is_new = mx.array(False)
    for each in source.gathers:
        shape = [1] * array.ndim
        shape[each.axis] = -1
        array = mx.take(array, mx.array(np.maximum(each.index, 0)), axis=each.axis)
        if each.scale is not None:
            array = array * mx.array(each.scale.astype(np.float32)).reshape(shape).astype(
                array.dtype
            )
        is_new = is_new | mx.array(each.index < 0).reshape(shape)
    if not source.gathers:
        return array
    return mx.where(is_new, mx.array(0, array.dtype) if fill is None else fill, array)


def draw(seed: int | None, path: str, shape: tuple[int, ...], std: float) -> mx.array:
    """Float32 numbers from N(0, std^2), a function of seed and path; 0 without a seed."""
    return mx.zeros(shape) if seed is None else mx.array(normal(seed, path, shape, std))


def gather_moment(moment: mx.array, axes: list[int], source: Source, power: int) -> mx.array:
    """The optimizer's statistic of the new array, from that of its source; 0 for new entries.

    Args:
        moment: with those `axes` of the array; Adafactor's means have lost one.
        power: of the gradient that the statistic is a mean of, 1 or 2.
    """
    gathers = []
    for each in source.gathers:
        scale = None if each.gradient_scale is None else each.gradient_scale**power
        if each.axis in axes:
            gathers.append(Gather(axes.index(each.axis), each.index, scale))
    return gather(moment, Source(source.path, tuple(gathers)))
