"""Wider states, whose new dimensions are zero at first: exact where norms are RMSNorm.

A norm over more dimensions has a smaller mean of squares: its weights and its `eps` are scaled to
make up for that.
"""

import re

import mlx.core as mx
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
from mlxlab.extensions.growth.operations.add_heads import extended, head_size
from mlxlab.extensions.growth.operations.schema import GrowWidth
from mlxlab.models.build import Architecture
from mlxlab.models.initialization import STD

TARGET = "mlxlab.models.transformer.Transformer"
NORM_EPS = 1e-5  # default where a node leaves it out
LAYER = r"backbone\.layers\.\d+"
NORM = re.compile(rf"(?:{LAYER}\.\w+_norm|backbone\.norm)\.weight")
WRITERS = re.compile(rf"{LAYER}\.(?:attention\.out|feed_forward\.down)\.(?:weight|bias)")  # (D, N)
READERS = re.compile(rf"(?:{LAYER}\.(?:attention|feed_forward)\.\w+|head\.\w+)\.weight")  # (N, D)
EMBEDDING = re.compile(r"backbone\.(?:position_)?embedding\.weight")  # (V, D)
ADAPTED = re.compile(r".*\.(?:lora_a|scales)")


def grow_width_node(operation: GrowWidth, before: Architecture) -> Architecture:
    """The wider architecture; ConfigError if it is not wider, or its norms make it inexact."""
    node = before.node
    size = operation["hidden_size"]
    if node["_target_"] != TARGET or node.get("norm_type", "rms") != "rms":
        raise ConfigError(
            "hidden_size: expected RMSNorm; LayerNorm subtracts a mean, which changes"
        )
    if node.get("qk_norm"):
        raise ConfigError("hidden_size: expected qk_norm=false; model.norm_eps changes")
    old = int(node["hidden_size"])
    if size <= old:
        raise ConfigError(f"hidden_size: expected more than {old}, got {size}")
    eps = node.get("norm_eps", NORM_EPS) * old / size
    return before.with_keys(hidden_size=size, head_dim=head_size(before), norm_eps=eps)


def grow_width_arrays(
    operation: GrowWidth, before: Architecture, arrays: Arrays, seed: int | None
) -> tuple[Arrays, Sources]:
    """The arrays of the wider model: what writes new dimensions is zero, what reads them is drawn."""
    require_plain_layers("grow_width", filter(ADAPTED.fullmatch, arrays))
    old = int(before.node["hidden_size"])
    size = operation["hidden_size"]
    index = extended(old, size)
    scale = np.where(index < 0, 1.0, np.sqrt(old / size))

    # A head with a hidden layer reads the states there.
    unread = "head.out.weight" if "head.hidden.weight" in arrays else ""

    def choose(path: str) -> Extension | None:
        if NORM.fullmatch(path):
            return Extension(Gather(0, index, scale, 1 / scale), base=lambda _: mx.array(1.0))
        if WRITERS.fullmatch(path):
            return Extension(Gather(0, index))
        if EMBEDDING.fullmatch(path):
            return Extension(Gather(1, index))
        if READERS.fullmatch(path) and path != unread:
            return Extension(Gather(1, index), STD)
        return None

    return extend_arrays(operation, arrays, seed, choose)
