"""Stacking: layers by a map of old ones. The first of each stays what it was, a copy does nothing at first."""

import re
from collections.abc import Iterable
from typing import Any

import mlx.core as mx
import numpy as np

from mlxlab.checkpoint.arrays import Arrays
from mlxlab.errors import ConfigError
from mlxlab.extensions.growth.arrays import Source, Sources
from mlxlab.extensions.growth.operations.schema import Stack
from mlxlab.models.build import Architecture
from mlxlab.models.model import PROJECTIONS
from mlxlab.models.patterns import select

LAYER = re.compile(r"(backbone\.(?:encoder\.)?layers)\.(\d+)\.(.+)")
RESIDUAL_OUTPUT = re.compile(r"(?:attention\.out|feed_forward\.down)\.(?:base\.)?(\w+)")
GATE = "gate"
POST_NORM = (
    "mlxlab.models.bert.Bert",
    "mlxlab.models.cnn_hybrid.CnnHybrid",
)  # unless their `pre_norm` is true


def stack_node(operation: Stack, before: Architecture) -> Architecture:
    """The deeper architecture; ConfigError if the map does not fit, or changes what the model computes."""
    node, layers = before.node, operation["map"]
    count, preserve = int(node["num_layers"]), operation.get("preserve", True)
    if node.get("no_rope_layers"):
        raise ConfigError(
            "map: model.no_rope_layers names layers by number, and they would become others"
        )
    if (every := node.get("global_attention_every", 1)) > 1:
        raise ConfigError(
            f"map: model.global_attention_every={every} counts layers, which would become others"
        )
    if not node.get("first_attention_norm", True):
        raise ConfigError(
            "map: model.first_attention_norm=false: the first layer has no norm for copies of it"
        )
    if max(layers) >= count:
        raise ConfigError(f"map: expected layers below {count}, got {max(layers)}")
    if preserve and list(dict.fromkeys(layers)) != list(range(count)):
        raise ConfigError(
            f"map: {layers} drops or reorders layers, which changes the model; preserve: false allows it"
        )
    gated = _gated_layers(operation, before)
    return before.with_keys(num_layers=len(layers), **({"gated_layers": gated} if gated else {}))


def stack_arrays(
    operation: Stack, before: Architecture, arrays: Arrays, seed: int | None
) -> tuple[Arrays, Sources]:
    """The arrays of the deeper model; copies of layers start with the statistics of their source."""
    if any(path.startswith(PROJECTIONS) for path in arrays):
        raise ConfigError(
            "stack: feature matching names layers by number, and they would become others"
        )
    refuse_other_layers(operation, before, arrays)
    layers, gated = operation["map"], set(_gated_layers(operation, before))
    result = {path: array for path, array in arrays.items() if not LAYER.match(path)}
    sources = {path: Source(path) for path in result}
    for path, array in arrays.items():
        if (match := LAYER.match(path)) is None:
            continue
        trunk, old, name = match[1], int(match[2]), match[3]
        if name.endswith("magnitude"):
            raise ConfigError(
                "stack: expected adapters without DoRA; merge_lora folds them into the weights first"
            )
        for new in np.flatnonzero(np.array(layers) == old).tolist():
            new_path = f"{trunk}.{new}.{name}"
            if _is_silenced(name, new in copies(operation), arrays, path, gated=new in gated):
                result[new_path] = mx.zeros_like(array)
            else:
                result[new_path], sources[new_path] = array, Source(path)
    trunk = next(match[1] for path in arrays if (match := LAYER.match(path)))
    result |= {f"{trunk}.{layer}.{GATE}": mx.zeros(1) for layer in gated & copies(operation)}
    return result, sources


def refuse_other_layers(operation: Stack, before: Architecture, paths: Iterable[str]) -> None:
    """ConfigError if a pattern of the `model` node would hold for a copy and not for its source, or the reverse."""
    sources: dict[str, str] = {}  # name after -> before
    for name in [path.replace(".base.", ".") for path in paths]:
        match = LAYER.match(name)
        if match is None:
            sources[name] = name
        else:
            new_layers = np.flatnonzero(np.array(operation["map"]) == int(match[2])).tolist()
            sources |= {f"{match[1]}.{new}.{match[3]}": name for new in new_layers}
    for pattern in _patterns(before.node):
        selected = set(select([pattern], dict.fromkeys(sources.values()), "stack"))
        selected_after = set(select([pattern], sources, "stack"))
        for name, source in sources.items():
            if (name in selected_after) != (source in selected):
                message = f"stack: the pattern {pattern} of the model would select only one of {name} (after it)"
                raise ConfigError(f"{message} and {source} (before), which it is made of")


def copies(operation: Stack) -> set[int]:
    """The new layers that are copies; none where the map declares that it changes the model."""
    layers = operation["map"]
    if not operation.get("preserve", True):
        return set()
    return {new for new, old in enumerate(layers) if old in layers[:new]}


def _is_silenced(name: str, is_copy: bool, arrays: Arrays, path: str, *, gated: bool) -> bool:
    """Whether an array of a layer enters as zero, so that the layer adds nothing to its input."""
    match = RESIDUAL_OUTPUT.fullmatch(name)
    if not is_copy or gated or match is None or match[1] == "lora_a":
        return is_copy and name == GATE
    quantized = (
        f"{path.removesuffix('.weight')}.scales" in arrays
    )  # its integers stay: scale and bias are zero
    return not (match[1] == "weight" and quantized)


def _gated_layers(operation: Stack, before: Architecture) -> list[int]:
    """The layers of the new model with a gate: copies in a post-norm trunk, and those that had one."""
    node = before.node
    if node.get("pre_norm", node["_target_"] not in POST_NORM):
        return []
    had = set(node.get("gated_layers") or ())
    return [
        new for new, old in enumerate(operation["map"]) if new in copies(operation) or old in had
    ]


def _patterns(node: dict[str, Any]) -> Iterable[str]:
    """All patterns of parameters and layers in a `model` node."""
    adapter, quantization = node.get("adapter") or {}, node.get("quantization") or {}
    lists = (
        node.get("freeze"),
        adapter.get("targets"),
        adapter.get("train"),
        quantization.get("skip"),
    )
    return [pattern for patterns in lists for pattern in patterns or ()]
