"""Arrays of a grown model: entries of those of the model before by index, and new ones."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mlxlab.checkpoint.arrays import Arrays
from mlxlab.errors import ConfigError
from mlxlab.extensions.growth.operations.schema import ScheduledOperation
from mlxlab.models.initialization import normal

EMBEDDING = re.compile(r"backbone\.(?:encoder\.)?embedding\.(?:base\.)?weight")


@dataclass(frozen=True)
class Gather:
    """Entries along an axis, by their old index; -1 is a new entry.

    Args:
        scale: of each entry; None is 1.
        gradient_scale: ratio of the gradient of an entry to that of its source, where the outputs
            are equal; None is 1.
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


Sources = dict[str, Source]  # new path -> source; arrays without one are new


@dataclass(frozen=True)
class Extension:
    """How an array grows.

    Args:
        gather: of its old entries.
        std: standard deviation of what is drawn for the new entries of a matrix.
        base: what it is added to, by the old array; None is 0.
    """

    gather: Gather
    std: float = 0.0
    base: Callable[[mx.array], mx.array] | None = None


def extend_arrays(
    operation: ScheduledOperation,
    arrays: Arrays,
    seed: int | None,
    choose: Callable[[str], Extension | None],
) -> tuple[Arrays, Sources]:
    """The arrays after an operation that keeps their paths; `choose` gives the extension of a path.

    What is drawn is a function of seed and path; it is 0 without a seed.
    """
    result, sources = same_arrays(arrays)
    for path, array in arrays.items():
        extension = choose(path)
        if extension is None:
            continue
        sources[path] = Source(path, (extension.gather,))
        fill = None if extension.base is None else extension.base(array)
        if extension.std and array.ndim > 1 and seed is not None:
            shape = list(array.shape)
            shape[extension.gather.axis] = len(extension.gather.index)
            drawn = mx.array(normal(seed, f"{operation['id']}.{path}", tuple(shape), extension.std))
            fill = drawn if fill is None else drawn + fill
        result[path] = gather(array, sources[path], fill)
    return result, sources


def same_arrays(arrays: Arrays) -> tuple[Arrays, Sources]:
    """All arrays, each made of itself."""
    return dict(arrays), {path: Source(path) for path in arrays}


def gather(array: mx.array, source: Source, fill: mx.array | None = None) -> mx.array:
    """The weights of the new array; its new entries are those of `fill`, or 0."""
    is_new = mx.array(False)
    for each in source.gathers:
        shape = [1] * array.ndim
        shape[each.axis] = -1
        array = mx.take(array, mx.array(np.maximum(each.index, 0)), axis=each.axis)
        if each.scale is not None:
            scale = mx.array(each.scale.astype(np.float32)).reshape(shape)
            array = array * scale.astype(array.dtype)
        is_new = is_new | mx.array(each.index < 0).reshape(shape)
    if not source.gathers:
        return array
    return mx.where(is_new, mx.array(0, array.dtype) if fill is None else fill, array)


def gather_moment(moment: mx.array, axes: list[int], source: Source, power: int) -> mx.array:
    """The optimizer's statistic of the new array, from that of its source; 0 for new entries.

    Args:
        moment: with those `axes` of the array; Adafactor's means have lost one.
        power: of the gradient that the statistic is a mean of, 1 or 2.
    """
    gathers = []
    for each in source.gathers:
        if each.axis in axes:
            scale = None if each.gradient_scale is None else each.gradient_scale**power
            gathers.append(Gather(axes.index(each.axis), each.index, scale))
    return gather(moment, Source(source.path, tuple(gathers)))


def has_classifier(arrays: Mapping[str, mx.array]) -> bool:
    """True unless the output layer is that of a language model: no bias, a row for each token."""
    out = arrays.get("head.out.weight")
    embeddings = [array for path, array in arrays.items() if EMBEDDING.fullmatch(path)]
    return "head.out.bias" in arrays or (out is not None and len(out) != len(embeddings[0]))


def require_plain_layers(operation: str, unsupported: re.Pattern[str], arrays: Arrays) -> None:
    """ConfigError for `unsupported` paths, of what only adapters or quantised layers have."""
    paths = filter(unsupported.fullmatch, arrays)
    for path in sorted(paths, key=lambda path: not path.endswith(".scales")):
        layer, _, name = path.rpartition(".")
        expected = f"{operation}: expected {layer.removesuffix('.base')}"
        if name == "scales":
            raise ConfigError(f"{expected} not quantised")
        raise ConfigError(f"{expected} without an adapter; merge_lora removes adapters")
