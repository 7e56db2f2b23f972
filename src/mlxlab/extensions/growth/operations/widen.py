"""Net2Net (Chen et al. 2016): wider feed-forward layers, whose new hidden units are copies of old ones.

The output weights of a unit are shared out among its copies, unequally: equal ones would have equal gradients for ever.
"""

import re
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from mlxlab.checkpoint.arrays import Arrays
from mlxlab.errors import ConfigError
from mlxlab.extensions.growth.arrays import Gather, Source, Sources, draw, gather
from mlxlab.extensions.growth.operations.plain_layers import require_plain_layers
from mlxlab.extensions.growth.operations.schema import Widen
from mlxlab.models.build import Architecture
from mlxlab.models.initialization import uniform

INPUT = re.compile(r"(.*\.feed_forward)\.(?:up|gate)\.(?:base\.)?(weight|bias|lora_b)")
OUTPUT = re.compile(r"(.*\.feed_forward)\.down\.(?:base\.)?(weight|lora_a)")
UNSUPPORTED = re.compile(r".*\.feed_forward\.(?:up|gate|down)\.(?:base\.)?(?:scales|magnitude)")


class Units(NamedTuple):
    """The hidden units of a wider layer: the old one that each is a copy of, and its share of that one's output."""

    source: np.ndarray
    share: np.ndarray


def widen_node(operation: Widen, before: Architecture) -> Architecture:
    """The wider architecture; ConfigError if it is not wider."""
    size, new = before.node["intermediate_size"], operation["feed_forward"]
    if new <= size:
        raise ConfigError(f"feed_forward: expected more than {size}, got {new}")
    return before.with_keys(intermediate_size=new)


def widen_arrays(
    operation: Widen, before: Architecture, arrays: Arrays, seed: int | None
) -> tuple[Arrays, Sources]:
    """The arrays of the wider model. ConfigError for adapters and weights whose form does not allow copies of rows."""
    old, size = int(before.node["intermediate_size"]), operation["feed_forward"]
    require_plain_layers("widen", filter(UNSUPPORTED.fullmatch, arrays), "a DoRA adapter")
    result: Arrays = {}
    sources: Sources = {}
    for path, array in arrays.items():
        if match := INPUT.fullmatch(path):
            units = choose_units(old, size, f"{operation['id']}.{match[1]}", seed or 0)
            # The gradient of a copy is its share of that of the unit: that reaches it through its output weights.
            sources[path] = Source(path, (Gather(0, units.source, gradient_scale=units.share),))
            result[path] = _with_noise(gather(array, sources[path]), path, old, operation, seed)
        elif match := OUTPUT.fullmatch(path):
            units = choose_units(old, size, f"{operation['id']}.{match[1]}", seed or 0)
            sources[path] = Source(path, (Gather(1, units.source, scale=units.share),))
            result[path] = gather(array, sources[path])
        else:
            result[path], sources[path] = array, Source(path)
    return result, sources


def choose_units(old: int, new: int, stream: str, seed: int) -> Units:
    """The units of a layer, the old ones first. Copies are drawn without replacement until all have one more."""
    keys = uniform(seed, f"{stream}.order", (-(-(new - old) // old), old), 1.0)
    index = np.concatenate(
        [np.arange(old), np.argsort(keys, axis=1, kind="stable").reshape(-1)[: new - old]]
    )
    weights = 1 + uniform(seed, f"{stream}.share", (new,), 0.5).astype(np.float64)
    totals = np.zeros(old)
    np.add.at(totals, index, weights)
    return Units(index, weights / totals[index])


def _with_noise(
    array: mx.array, path: str, old: int, operation: Widen, seed: int | None
) -> mx.array:
    noise = operation.get("noise", 0.0)
    if not noise or path.endswith(("bias", "lora_b")):
        return array
    drawn = draw(seed, f"{operation['id']}.{path}", array.shape, noise)
    return array + mx.where(mx.arange(len(array))[:, None] < old, 0.0, drawn)
