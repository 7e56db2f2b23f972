"""Net2Net (Chen et al. 2016): wider feed-forward layers, whose new units are copies of old ones.

The output weights of a unit are shared out among its copies, unequally: equal ones would have equal
gradients for ever.
"""

import re
from typing import NamedTuple

import numpy as np

from mlxlab.checkpoint.arrays import Arrays
from mlxlab.errors import ConfigError
from mlxlab.extensions.growth.arrays import (
    Extension,
    Gather,
    Sources,
    extend_arrays,
    require_plain_layers,
)
from mlxlab.extensions.growth.operations.schema import Widen
from mlxlab.models.build import Architecture
from mlxlab.models.initialization import uniform

INPUT = re.compile(r"(.*\.feed_forward)\.(?:up|gate)\.(?:base\.)?(weight|bias|lora_b)")
OUTPUT = re.compile(r"(.*\.feed_forward)\.down\.(?:base\.)?(weight|lora_a)")
UNSUPPORTED = re.compile(r".*\.feed_forward\.(?:up|gate|down)\.(?:base\.)?(?:scales|magnitude)")


class Units(NamedTuple):
    """The hidden units of a wider layer: the old unit that each copies, and its share of the output."""

    source: np.ndarray
    share: np.ndarray


def widen_node(operation: Widen, before: Architecture) -> Architecture:
    """The wider architecture; ConfigError if it is not wider."""
    old = before.node["intermediate_size"]
    new = operation["feed_forward"]
    if new <= old:
        raise ConfigError(f"feed_forward: expected more than {old}, got {new}")
    return before.with_keys(intermediate_size=new)


def widen_arrays(
    operation: Widen, before: Architecture, arrays: Arrays, seed: int | None
) -> tuple[Arrays, Sources]:
    """The arrays of the wider model; ConfigError for quantised layers and DoRA adapters."""
    require_plain_layers("widen", filter(UNSUPPORTED.fullmatch, arrays))
    old = int(before.node["intermediate_size"])
    size = operation["feed_forward"]

    def choose(path: str) -> Extension | None:
        reads = INPUT.fullmatch(path)
        match = reads or OUTPUT.fullmatch(path)
        if match is None:
            return None
        units = choose_units(old, size, f"{operation['id']}.{match[1]}", seed or 0)
        if reads:
            # The gradient reaches a copy through its output weights: it has their share.
            return Extension(Gather(0, units.source, gradient_scale=units.share))
        return Extension(Gather(1, units.source, scale=units.share))

    return extend_arrays(operation, arrays, seed, choose)


def choose_units(old: int, new: int, stream: str, seed: int) -> Units:
    """The units of a layer, the old ones first.

    Copies are drawn without replacement until all units have one more.
    """
    keys = uniform(seed, f"{stream}.order", (-(-(new - old) // old), old), 1.0)
    copies = np.argsort(keys, axis=1, kind="stable").reshape(-1)[: new - old]
    index = np.concatenate([np.arange(old), copies])
    weights = 1 + uniform(seed, f"{stream}.share", (new,), 0.5).astype(np.float64)
    totals = np.bincount(index, weights)
    return Units(index, weights / totals[index])
