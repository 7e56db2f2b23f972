"""What growth should do, by hand: which operations are refused, and what becomes of the optimizer state."""

import re
from collections.abc import Collection
from typing import Any, NamedTuple

from mlxlab.models.build import Architecture

ADAPTER = re.compile(r".+\.(lora_a|lora_b|magnitude)")
LAYER = re.compile(r"(.*layers\.)(\d+)\.(.+)")
TABLE = re.compile(r"(backbone\.(encoder\.)?embedding|head\.out)(\.base)?")
RESIDUAL_OUTPUT = re.compile(r"(attention\.out|feed_forward\.down)\.(weight|bias|lora_b)")


class Transfer(NamedTuple):
    """The parameters whose optimizer state is carried over, new, or dropped with them."""

    carried: set[str]
    fresh: set[str]
    dropped: set[str]

    @property
    def counts(self) -> tuple[int, int, int]:
        return len(self.carried), len(self.fresh), len(self.dropped)


def expected_transfer(
    operation: dict[str, Any], node: dict[str, Any], before: set[str], after: set[str]
) -> Transfer:
    """Of an operation on a model of `node`, by the paths of the parameters that are trained before and after it."""
    sources = {path: source_of(path, operation, node) for path in after}
    carried = {path for path in after if sources[path] in before}
    return Transfer(carried, after - carried, before - {sources[path] for path in carried})


def source_of(path: str, operation: dict[str, Any], node: dict[str, Any]) -> str:
    """The parameter whose statistics one has after an operation; "" where they are new."""
    if operation["op"] == "set_lora" and ADAPTER.fullmatch(path):
        return ""
    layer = LAYER.fullmatch(path)
    if operation["op"] != "stack" or layer is None:
        return path
    number, name, layers = int(layer[2]), layer[3], operation["map"]
    is_copy = operation.get("preserve", True) and layers.index(layers[number]) < number
    gated = node.get("pre_norm") is False
    is_zero = name == "gate" if gated else RESIDUAL_OUTPUT.fullmatch(name)
    return "" if is_copy and is_zero else f"{layer[1]}{layers[number]}.{name}"


def refusal(operation: dict[str, Any], before: Architecture, paths: Collection[str]) -> str | None:
    """A part of the message of an operation that does not fit a model with these parameters; None where it fits."""
    node = before.node
    adapted = {path.rpartition(".")[0] for path in paths if path.endswith((".lora_a", ".scales"))}
    inside = {
        name
        for name in ("attention", "feed_forward")
        if any(f".{name}." in path for path in adapted)
    }
    has_dora = any(path.endswith(".magnitude") and "layers" in path for path in paths)
    quantized = any(path.endswith(".scales") for path in paths)
    packed = {
        path.rpartition(".")[0].removesuffix(".base") for path in paths if path.endswith(".scales")
    }
    match operation["op"]:
        case "grow_width" if node.get("norm_type") != "rms":
            return "expected RMSNorm"
        case "grow_width" if adapted:
            return "not quantised" if packed else "without an adapter; merge_lora"
        case "add_heads" if "attention" in inside:
            is_packed = any(".attention." in path for path in packed)
            return "not quantised" if is_packed else "without an adapter; merge_lora"
        case "stack" if has_dora:
            return "without DoRA"
        case "widen" if quantized or (
            has_dora and any("feed_forward" in path for path in paths if "magnit" in path)
        ):
            is_packed = any(".feed_forward." in path for path in packed)
            return "not quantised" if is_packed else "without an adapter; merge_lora"
        case "resize_vocabulary" if any(TABLE.fullmatch(path) for path in adapted):
            is_packed = any(TABLE.fullmatch(path) for path in packed)
            return "not quantised" if is_packed else "without an adapter; merge_lora"
        case "merge_lora" if node.get("adapter") is None:
            return "expected a model with adapters"
        case "merge_lora" | "set_lora" if quantized and node.get("adapter") is not None:
            return "quantised"
    return None
