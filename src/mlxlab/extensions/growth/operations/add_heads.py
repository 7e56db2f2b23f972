"""More attention heads of the same size, whose output columns are zero at first."""

import re

import numpy as np

from mlxlab.checkpoint.arrays import Arrays
from mlxlab.errors import ConfigError
from mlxlab.extensions.growth.arrays import Gather, Source, Sources, draw, gather
from mlxlab.extensions.growth.operations.plain_layers import require_plain_layers
from mlxlab.extensions.growth.operations.schema import AddHeads
from mlxlab.models.build import Architecture
from mlxlab.models.initialization import STD

INPUT = re.compile(r".*\.attention\.(query|key|value)\.(weight|bias)")
OUTPUT = re.compile(r".*\.attention\.out\.weight")
ADAPTED = re.compile(r".*\.attention\.\w+\.(?:base\.)?(?:lora_a|scales)")


def add_heads_node(operation: AddHeads, before: Architecture) -> Architecture:
    """The architecture with more heads; ConfigError if groups of query heads would get another size."""
    node, heads = before.node, operation["heads"]
    old, pairs = int(node["num_heads"]), int(node.get("num_kv_heads") or node["num_heads"])
    if heads <= old:
        raise ConfigError(f"heads: expected more than {old}, got {heads}")
    if heads % (old // pairs):
        expected = f"a multiple of {old // pairs}, the query heads of each key-value head"
        raise ConfigError(f"heads: expected {expected}, got {heads}")
    changes = {"num_heads": heads, "head_dim": head_size(before)}
    if node.get("num_kv_heads"):
        changes["num_kv_heads"] = heads // (old // pairs)
    return before.with_keys(**changes)


def add_heads_arrays(
    operation: AddHeads, before: Architecture, arrays: Arrays, seed: int | None
) -> tuple[Arrays, Sources]:
    """The arrays with new heads, which are drawn; ConfigError for attention layers with adapters or quantised ones."""
    require_plain_layers("add_heads", filter(ADAPTED.fullmatch, arrays))
    after, size = add_heads_node(operation, before).node, head_size(before)
    pairs = int(after.get("num_kv_heads") or after["num_heads"])
    widths = {"query": after["num_heads"] * size, "key": pairs * size, "value": pairs * size}
    result: Arrays = {}
    sources: Sources = {}
    for path, array in arrays.items():
        sources[path], fill = Source(path), None
        if match := INPUT.fullmatch(path):
            shape = (widths[match[1]], *array.shape[1:])
            sources[path] = Source(path, (Gather(0, extended(len(array), shape[0])),))
            fill = (
                draw(seed, f"{operation['id']}.{path}", shape, STD)
                if match[2] == "weight"
                else None
            )
        elif OUTPUT.fullmatch(path):
            sources[path] = Source(path, (Gather(1, extended(array.shape[1], widths["query"])),))
        result[path] = gather(array, sources[path], fill)
    return result, sources


def head_size(architecture: Architecture) -> int:
    """The dimensions of an attention head."""
    node = architecture.node
    return int(node.get("head_dim") or node["hidden_size"] // node["num_heads"])


def extended(old: int, new: int) -> np.ndarray:
    """The indices of `old` entries, then -1 for new ones."""
    return np.concatenate([np.arange(old), np.full(new - old, -1)])
