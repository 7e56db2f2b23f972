"""Stacking: layers by a map of old ones. The first of each stays, a copy does nothing at first."""

import re

import mlx.core as mx

from mlxlab.checkpoint.arrays import Arrays
from mlxlab.errors import ConfigError
from mlxlab.extensions.growth.arrays import Source, Sources
from mlxlab.extensions.growth.operations.schema import Stack
from mlxlab.models.build import Architecture

LAYER = re.compile(r"(backbone\.(?:encoder\.)?layers)\.(\d+)\.(.+)")
RESIDUAL_OUTPUT = re.compile(r"(?:attention\.out|feed_forward\.down)\.(?:base\.)?(\w+)")
GATE = "gate"
# They depend on the numbers of layers, with the value for which they do not.
NUMBERED = {"global_attention_every": 1, "first_attention_norm": True}
# Models whose norms come after the residual sum, unless their `pre_norm` is true.
POST_NORM = ("mlxlab.models.bert.Bert", "mlxlab.models.cnn_hybrid.CnnHybrid")


def stack_node(operation: Stack, before: Architecture) -> Architecture:
    """The deeper architecture; ConfigError if the map does not fit, or changes the outputs."""
    node = before.node
    layers = operation["map"]
    count = int(node["num_layers"])
    for key, neutral in NUMBERED.items():
        value = node.get(key)
        if value is not None and value != neutral:
            raise ConfigError(f"map: expected model.{key}={neutral}, got {value}")
    if max(layers) >= count:
        raise ConfigError(f"map: expected layers below {count}, got {max(layers)}")
    if operation.get("preserve", True) and list(dict.fromkeys(layers)) != list(range(count)):
        raise ConfigError(
            f"map: {layers} drops or reorders layers, which changes the model; preserve: false"
        )
    gated = _gated_layers(operation, before)
    after = before.with_keys(num_layers=len(layers))
    return after.with_keys(gated_layers=gated) if gated else after


def stack_arrays(
    operation: Stack, before: Architecture, arrays: Arrays, seed: int | None
) -> tuple[Arrays, Sources]:
    """The arrays of the deeper model; copies of layers start with the statistics of their source."""
    result: Arrays = {}
    sources: Sources = {}
    layers: dict[int, dict[str, str]] = {}  # the paths of each layer, by name in the layer
    trunk = ""
    for path, array in arrays.items():
        match = LAYER.match(path)
        if match is None:
            result[path] = array
            sources[path] = Source(path)
        else:
            trunk = match[1]
            layers.setdefault(int(match[2]), {})[match[3]] = path
    gated = set(_gated_layers(operation, before))
    copies = _copies(operation)
    for new, old in enumerate(operation["map"]):
        paths = layers[old]
        for name, path in paths.items():
            if name.endswith("magnitude"):
                raise ConfigError("stack: expected adapters without DoRA; merge_lora removes them")
            new_path = f"{trunk}.{new}.{name}"
            if new in copies and _is_silenced(name, paths, is_gated=new in gated):
                result[new_path] = mx.zeros_like(arrays[path])
            else:
                result[new_path] = arrays[path]
                sources[new_path] = Source(path)
        if new in gated & copies:
            result[f"{trunk}.{new}.{GATE}"] = mx.zeros(1)
    return result, sources


def _copies(operation: Stack) -> set[int]:
    """The new layers that are copies; none where the map declares that it changes the model."""
    layers = operation["map"]
    if not operation.get("preserve", True):
        return set()
    return {new for new, old in enumerate(layers) if old in layers[:new]}


def _is_silenced(name: str, paths: dict[str, str], *, is_gated: bool) -> bool:
    """True for an array of a copy that enters as zero: the layer then adds nothing to its input."""
    if name == GATE:
        return True
    match = RESIDUAL_OUTPUT.fullmatch(name)
    if is_gated or match is None or match[1] == "lora_a":
        return False
    # The codes of a quantised weight stay: its scales and biases are zero.
    return match[1] != "weight" or f"{name.removesuffix('weight')}scales" not in paths


def _gated_layers(operation: Stack, before: Architecture) -> list[int]:
    """The new layers with a gate: copies in a post-norm trunk, and those that had one."""
    node = before.node
    if node.get("pre_norm", node["_target_"] not in POST_NORM):
        return []
    had_gate = node.get("gated_layers") or ()
    copies = _copies(operation)
    return [new for new, old in enumerate(operation["map"]) if new in copies or old in had_gate]
