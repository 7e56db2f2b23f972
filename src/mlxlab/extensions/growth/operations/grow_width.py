"""Wider states, whose new dimensions are zero at first: exact where norms are RMSNorm.

A norm over more dimensions has a smaller mean of squares: its weights and its `eps` are scaled to make up for that.
"""

import re

import mlx.core as mx
import numpy as np

from mlxlab.checkpoint.arrays import Arrays
from mlxlab.errors import ConfigError
from mlxlab.extensions.growth.arrays import Gather, Source, Sources, draw, gather
from mlxlab.extensions.growth.operations.add_heads import extended, head_size
from mlxlab.extensions.growth.operations.plain_layers import require_plain_layers
from mlxlab.extensions.growth.operations.schema import GrowWidth
from mlxlab.models.build import Architecture
from mlxlab.models.initialization import STD

TARGET = "mlxlab.models.transformer.Transformer"
NORM_EPS = 1e-5  # of a node that leaves it out
NORM = re.compile(r"backbone\.(?:layers\.\d+\.\w+_norm|norm)\.weight")
WRITERS = re.compile(
    r"backbone\.layers\.\d+\.(?:attention\.out|feed_forward\.down)\.(?:weight|bias)"
)  # (D, ...)
READERS = re.compile(
    r"(?:backbone\.layers\.\d+\.(?:attention|feed_forward)\.\w+|head\.\w+)\.weight"
)  # (out, D)
EMBEDDING = re.compile(r"backbone\.(?:position_)?embedding\.weight")  # (V, D)


def grow_width_node(operation: GrowWidth, before: Architecture) -> Architecture:
    """The wider architecture; ConfigError if it is not wider, or its norms make it inexact."""
    node, size = before.node, operation["hidden_size"]
    if node["_target_"] != TARGET or node.get("norm_type", "rms") != "rms":
        raise ConfigError(
            "hidden_size: LayerNorm subtracts a mean, which new dimensions change; expected RMSNorm"
        )
    if node.get("qk_norm"):
        raise ConfigError(
            "hidden_size: norms of queries and keys share model.norm_eps, which changes; qk_norm=false"
        )
    old = int(node["hidden_size"])
    if size <= old:
        raise ConfigError(f"hidden_size: expected more than {old}, got {size}")
    eps = node.get("norm_eps", NORM_EPS) * old / size
    return before.with_keys(hidden_size=size, head_dim=head_size(before), norm_eps=eps)


def grow_width_arrays(
    operation: GrowWidth, before: Architecture, arrays: Arrays, seed: int | None
) -> tuple[Arrays, Sources]:
    """The arrays of the wider model: what writes new dimensions is zero, what reads them is drawn."""
    require_plain_layers(
        "grow_width", (path for path in arrays if path.endswith((".lora_a", ".scales")))
    )
    old, size = int(before.node["hidden_size"]), operation["hidden_size"]
    index = extended(old, size)
    scale = np.where(index < 0, 1.0, np.sqrt(old / size))
    result: Arrays = {}
    sources: Sources = {}
    for path, array in arrays.items():
        fill, gathers = None, tuple[Gather, ...]()
        if NORM.fullmatch(path):
            gathers, fill = (Gather(0, index, scale, 1 / scale),), mx.ones(size)
        elif WRITERS.fullmatch(path):
            gathers = (Gather(0, index),)
        elif EMBEDDING.fullmatch(path):
            gathers = (Gather(1, index),)
        elif READERS.fullmatch(path) and not (
            path == "head.out.weight" and "head.hidden.weight" in arrays
        ):
            gathers = (Gather(1, index),)
            fill = draw(seed, f"{operation['id']}.{path}", (len(array), size), STD)
        sources[path] = Source(path, gathers)
        result[path] = gather(array, sources[path], fill)
    return result, sources
