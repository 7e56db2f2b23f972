"""Operations that extend arrays: more hidden units, attention heads, dimensions or tokens.

Wider feed-forward layers are those of Net2Net (Chen et al. 2016): new units are copies of old ones,
whose output weights are shared out unequally, as equal ones would have equal gradients for ever.
New heads and dimensions write zero at first. A norm over more dimensions has a smaller mean of
squares: its weights and its `eps` are scaled to make up for that.
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
    has_classifier,
    require_plain_layers,
)
from mlxlab.extensions.growth.operations.schema import AddHeads, GrowWidth, ResizeVocabulary, Widen
from mlxlab.models.build import Architecture
from mlxlab.models.initialization import STD, uniform

# The arrays of a feed-forward layer.
UNIT_INPUT = re.compile(r"(.*\.feed_forward)\.(?:up|gate)\.(?:base\.)?(weight|bias|lora_b)")
UNIT_OUTPUT = re.compile(r"(.*\.feed_forward)\.down\.(?:base\.)?(weight|lora_a)")
UNIT_UNSUPPORTED = re.compile(
    r".*\.feed_forward\.(?:up|gate|down)\.(?:base\.)?(?:scales|magnitude)"
)
# The arrays of attention.
HEAD_INPUT = re.compile(r".*\.attention\.(query|key|value)\.(?:weight|bias)")
HEAD_OUTPUT = re.compile(r".*\.attention\.out\.weight")
HEAD_ADAPTED = re.compile(r".*\.attention\.\w+\.(?:base\.)?(?:lora_a|scales)")
# Arrays with a row or a column for each dimension of the states.
TARGET = "mlxlab.models.transformer.Transformer"
NORM_EPS = 1e-5  # default where a node leaves it out
LAYER = r"backbone\.layers\.\d+"
NORM = re.compile(rf"(?:{LAYER}\.\w+_norm|backbone\.norm)\.weight")
WRITERS = re.compile(rf"{LAYER}\.(?:attention\.out|feed_forward\.down)\.(?:weight|bias)")  # (D, N)
READERS = re.compile(rf"(?:{LAYER}\.(?:attention|feed_forward)\.\w+|head\.\w+)\.weight")  # (N, D)
EMBEDDING = re.compile(r"backbone\.(?:position_)?embedding\.weight")  # (V, D)
ANY_ADAPTED = re.compile(r".*\.(?:lora_a|scales)")
# Arrays with a row for each token.
TABLE = re.compile(r"backbone\.(?:encoder\.)?embedding\.weight|head\.out\.weight|head\.bias")
TABLE_ADAPTED = re.compile(
    r"(?:backbone\.(?:encoder\.)?embedding|head\.out)\.(?:base\.)?(?:lora_a|scales)"
)
NOISE = 0.01  # standard deviation of the noise on copies of embeddings, by default


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
    require_plain_layers("widen", UNIT_UNSUPPORTED, arrays)
    old = int(before.node["intermediate_size"])
    size = operation["feed_forward"]

    def choose(path: str) -> Extension | None:
        reads = UNIT_INPUT.fullmatch(path)
        match = reads or UNIT_OUTPUT.fullmatch(path)
        if match is None:
            return None
        source, share = choose_units(old, size, f"{operation['id']}.{match[1]}", seed or 0)
        if reads:
            # The gradient reaches a copy through its output weights: it has their share.
            return Extension(Gather(0, source, gradient_scale=share))
        return Extension(Gather(1, source, scale=share))

    return extend_arrays(operation, arrays, seed, choose)


def choose_units(old: int, new: int, stream: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The old unit that each unit of a wider layer copies, and the share of the output that it has.

    The old ones come first. Copies are drawn without replacement until all units have one more.
    """
    keys = uniform(seed, f"{stream}.order", (-(-(new - old) // old), old), 1.0)
    copies = np.argsort(keys, axis=1, kind="stable").reshape(-1)[: new - old]
    index = np.concatenate([np.arange(old), copies])
    weights = 1 + uniform(seed, f"{stream}.share", (new,), 0.5).astype(np.float64)
    totals = np.bincount(index, weights)
    return index, weights / totals[index]


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
    require_plain_layers("add_heads", HEAD_ADAPTED, arrays)
    node = add_heads_node(operation, before).node
    size = head_size(before)
    queries = extended(before.node["num_heads"] * size, node["num_heads"] * size)
    old_keys = before.node.get("num_kv_heads") or before.node["num_heads"]
    new_keys = node.get("num_kv_heads") or node["num_heads"]
    keys = extended(old_keys * size, new_keys * size)

    def choose(path: str) -> Extension | None:
        if HEAD_OUTPUT.fullmatch(path):
            return Extension(Gather(1, queries))
        match = HEAD_INPUT.fullmatch(path)
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
    require_plain_layers("grow_width", ANY_ADAPTED, arrays)
    old = int(before.node["hidden_size"])
    size = operation["hidden_size"]
    index = extended(old, size)
    scale = np.where(index < 0, 1.0, np.sqrt(old / size))

    # A head with a hidden layer reads the states there.
    unread = ""
    if "head.hidden.weight" in arrays:
        unread = "head.out.weight"

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


def resize_vocabulary_node(operation: ResizeVocabulary, before: Architecture) -> Architecture:
    """The architecture with another vocabulary; ConfigError if it is the same or has no source."""
    old = before.vocab_size
    source = operation.get("source")
    if operation["size"] == old:
        raise ConfigError(f"size: expected more or fewer than {old}, got {old}")
    if isinstance(source, int) and source >= old:
        raise ConfigError(f"source: expected a token below {old}, got {source}")
    return Architecture(before.node, operation["size"])


def resize_vocabulary_arrays(
    operation: ResizeVocabulary, before: Architecture, arrays: Arrays, seed: int | None
) -> tuple[Arrays, Sources]:
    """The arrays with more or fewer rows. The logits of tokens in both do not change.

    Raises ConfigError if embedding or output layer have an adapter, or are quantised.
    """
    require_plain_layers("vocabulary", TABLE_ADAPTED, arrays)
    is_classifier = has_classifier(arrays)
    source = operation.get("source")
    index = np.arange(operation["size"])
    index[before.vocab_size :] = -1
    extension = Extension(Gather(0, index), STD)
    if source is not None:

        def base(array: mx.array) -> mx.array:
            return array.mean(axis=0) if source == "mean" else array[source]

        extension = Extension(Gather(0, index), operation.get("noise", NOISE), base)

    def choose(path: str) -> Extension | None:
        if not TABLE.fullmatch(path) or (is_classifier and path.startswith("head.")):
            return None
        return extension

    return extend_arrays(operation, arrays, seed, choose)
