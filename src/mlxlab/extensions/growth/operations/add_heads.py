"""More attention heads of the same size, whose output columns are zero at first."""

import re

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
from mlxlab.extensions.growth.operations.schema import AddHeads
from mlxlab.models.build import Architecture
from mlxlab.models.initialization import STD

INPUT = re.compile(r".*\.attention\.(query|key|value)\.(?:weight|bias)")
OUTPUT = re.compile(r".*\.attention\.out\.weight")
ADAPTED = re.compile(r".*\.attention\.\w+\.(?:base\.)?(?:lora_a|scales)")


def add_heads_node(operation: AddHeads, before: Architecture) -> Architecture:
    """The architecture with more heads, in groups of query heads of the same size."""
    node = before.node
    heads = operation["heads"]
    old = int(node["num_heads"])
    group = old // int(node.get("num_kv_heads") or old)
    if heads <= old or heads % group:
        raise ConfigError(f"heads: expected a multiple of {group} above {old}, got {heads}")
    changes = {"num_heads": heads, "head_dim": head_size(before)}
    if node.get("num_kv_heads"):
        changes["num_kv_heads"] = heads // group
    return before.with_keys(**changes)


def add_heads_arrays(
    operation: AddHeads, before: Architecture, arrays: Arrays, seed: int | None
) -> tuple[Arrays, Sources]:
    """The arrays with new heads, which are drawn; ConfigError for adapted or quantised layers."""
    require_plain_layers("add_heads", filter(ADAPTED.fullmatch, arrays))
    node = add_heads_node(operation, before).node
    size = head_size(before)
    queries = extended(before.node["num_heads"] * size, node["num_heads"] * size)
    old_keys = before.node.get("num_kv_heads") or before.node["num_heads"]
    new_keys = node.get("num_kv_heads") or node["num_heads"]
    keys = extended(old_keys * size, new_keys * size)

    def choose(path: str) -> Extension | None:
        if OUTPUT.fullmatch(path):
            return Extension(Gather(1, queries))
        match = INPUT.fullmatch(path)
        if match is None:
            return None
        return Extension(Gather(0, queries if match[1] == "query" else keys), STD)

    return extend_arrays(operation, arrays, seed, choose)


def head_size(architecture: Architecture) -> int:
    """The dimensions of an attention head."""
    node = architecture.node
    return int(node.get("head_dim") or node["hidden_size"] // node["num_heads"])


def extended(old: int, new: int) -> np.ndarray:
    """The indices of `old` entries, then -1 for new ones."""
    return np.concatenate([np.arange(old), np.full(new - old, -1)])
