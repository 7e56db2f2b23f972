"""Refuses what cannot fit in memory by arithmetic on shapes, before anything is allocated."""

from collections.abc import Callable, Mapping
from math import prod

import mlx.core as mx
import mlx.nn as nn

from mlxlab.backend import memory_budget
from mlxlab.backend.memory import total_memory
from mlxlab.errors import ConfigError
from mlxlab.models.adapters.quantized import parameter_shapes
from mlxlab.models.pretrained.family import Node
from mlxlab.schema.dotted_keys import walk

MAX_OUTLINED_LAYERS = 64  # A deeper model is computed from two shallow ones.
MAX_AXIS = 2**31 - 1  # MLX counts the elements of an axis in int32.
MAX_NAMED = 3


def check_weights(node: Node, build: Callable[[Node], nn.Module], vocab_size: int) -> None:
    """Raises ConfigError if the weights of a backbone cannot fit in memory.

    Args:
        build: makes the backbone of a node, its arrays unevaluated.
    """
    bits = (node.get("quantization") or {}).get("bits") or 32

    def weight_bytes(node: Node) -> int:
        shapes = parameter_shapes(build(node)).values()
        return sum(map(prod, shapes)) * bits // 8

    check_memory(weight_bytes, node, {"vocab_size": vocab_size})


def check_memory(measure: Callable[[Node], int], node: Node, keys: Mapping[str, int]) -> None:
    """Raises ConfigError if `measure(node)`, in bytes, is more than this machine has.

    Args:
        measure: is linear in the number of layers.
        keys: sizes that it depends on in addition to those of the `model` node.
    """
    sizes = {**_sizes(node), **keys}
    try:
        needed = _extrapolate(measure, node)
    except OverflowError:
        raise ConfigError(
            f"{_largest(sizes)}: expected arrays of at most {MAX_AXIS:,} along each axis"
        ) from None
    refuse_beyond_memory(needed, sizes)


def refuse_beyond_memory(needed: int, sizes: Mapping[str, int]) -> None:
    """Raises ConfigError, with the largest of the keys `sizes`, if this machine has fewer bytes than `needed`."""
    available = max(total_memory(), memory_budget())  # A GPU may have more than its host.
    if needed > available:
        amounts = f"{needed / 1e9:,.1f} GB of memory, this machine has {available / 1e9:,.1f} GB"
        raise ConfigError(f"{_largest(sizes)}: needs at least {amounts}")


def array_bytes(arrays: Mapping[str, mx.array]) -> int:
    """The bytes of arrays that need not be evaluated; `nbytes` overflows."""
    return sum(prod(array.shape) * array.dtype.size for array in arrays.values())


def is_deep(node: Node) -> bool:
    """Whether a model has too many layers to build it only to measure it, and all of them are alike."""
    is_uniform = str(node["_target_"]).startswith("mlxlab.")
    layers = node.get("num_layers")
    return is_uniform and isinstance(layers, int) and layers > MAX_OUTLINED_LAYERS


def _extrapolate(measure: Callable[[Node], int], node: Node) -> int:
    if not is_deep(node):
        return measure(node)
    low = measure({**node, "num_layers": 2})
    high = measure({**node, "num_layers": 3})
    return low + (high - low) * (node["num_layers"] - 2)


def _sizes(node: Node) -> dict[str, int]:
    """The whole numbers of a `model` node by key."""
    return {key: value for key, value in walk(node, "model") if type(value) is int}


def _largest(sizes: Mapping[str, int]) -> str:
    """The largest of the keys, and others of at least a tenth of its value."""
    keys = sorted(sizes, key=lambda key: -sizes[key])
    named = [key for key in keys[:MAX_NAMED] if 10 * sizes[key] >= sizes[keys[0]]]
    return ", ".join(f"{key}={sizes[key]}" for key in named)
