"""Adapters during a run: added, merged into the weights, or replaced by others of another rank."""

from collections.abc import Sequence
from typing import Any

from mlxlab.checkpoint.arrays import Arrays
from mlxlab.errors import ConfigError
from mlxlab.extensions.growth.arrays import Source, Sources, has_classifier
from mlxlab.extensions.growth.operations.schema import MergeLoRA, SetLoRA
from mlxlab.models.adapters.arrays import adapted_layers, insert, merge, rerank
from mlxlab.models.adapters.freeze import adapter_paths
from mlxlab.models.adapters.quantize import packing_of
from mlxlab.models.build import Architecture
from mlxlab.models.options import LoRA, split_node
from mlxlab.models.patterns import select
from mlxlab.models.pretrained.load import MLX_LM

TARGET = "mlxlab.models.options.LoRA"
PROJECTIONS = ("attention.*", "feed_forward.*")  # that get an adapter by default
IN_LAYERS = (
    r"re:.*\.\d+\..*",
)  # of an architecture of mlx-lm, which names its layers in several ways


def set_lora_node(operation: SetLoRA, before: Architecture) -> Architecture:
    """The architecture with adapters; ConfigError if the new ones would be on other layers than those before."""
    old: dict[str, Any] | None = before.node.get("adapter")
    targets, alpha = operation.get("targets"), operation.get("alpha")
    if old is not None and targets is not None and targets != old.get("targets"):
        raise ConfigError(
            f"targets: expected {old.get('targets')}, as before, got {targets}; use merge_lora first"
        )
    new = {**(old or {"_target_": TARGET}), "rank": operation["rank"]}
    new["alpha"] = alpha or (old or {}).get("alpha") or 2.0 * operation["rank"]
    if targets is not None:
        new["targets"] = targets
    return before.with_keys(adapter=new)


def set_lora_arrays(
    operation: SetLoRA, before: Architecture, arrays: Arrays, seed: int | None
) -> tuple[Arrays, Sources]:
    """The arrays with adapters, whose optimizer state is new; the frozen weights lose theirs."""
    old, new = (_options(node) for node in (before, set_lora_node(operation, before)))
    assert new is not None
    if old is not None:
        return _with_sources(rerank(arrays, old, new, seed), arrays)
    layers = [
        path.removesuffix(".weight")
        for path, array in arrays.items()
        if path.endswith(".weight") and array.ndim == 2
    ]
    if has_classifier(arrays):  # a classifier, which trains itself
        _refuse_classifier(new.targets or (), layers)
        layers = [path for path in layers if not path.startswith("head.")]
    default = IN_LAYERS if before.node["_target_"] == MLX_LM else PROJECTIONS
    chosen = select(new.targets or default, sorted(layers), "targets")
    quantization = split_node(before.node)[0].quantization
    packing = None if quantization.bits is None else packing_of(quantization)
    return _with_sources(insert(arrays, chosen, new, seed, packing), arrays)


def _refuse_classifier(targets: Sequence[str], layers: Sequence[str]) -> None:
    """ConfigError for a pattern that matches nothing but the classifier."""
    for pattern in targets:
        matches = select([pattern], layers, "targets")
        if all(path.startswith("head.") for path in matches):
            others = [path for path in layers if not path.startswith("head.")]
            expected = f"expected layers below it, for example {others[-1]}"
            raise ConfigError(
                f"targets: {pattern} is the classifier, which always trains in full; {expected}"
            )


def merge_lora_node(operation: MergeLoRA, before: Architecture) -> Architecture:
    """The architecture without adapters; ConfigError if there are none."""
    if before.node.get("adapter") is None:
        raise ConfigError("merge_lora: expected a model with adapters, got one without")
    return before.with_keys(adapter=None)


def merge_lora_arrays(
    operation: MergeLoRA, before: Architecture, arrays: Arrays, seed: int | None
) -> tuple[Arrays, Sources]:
    """The arrays without adapters; the optimizer state of the merged weights is new."""
    options = _options(before)
    assert options is not None
    if any(f"{layer}.base.scales" in arrays for layer in adapted_layers(arrays)):
        raise ConfigError("merge_lora: expected adapters of weights that are not quantised")
    return _with_sources(merge(arrays, options), arrays)


def _options(architecture: Architecture) -> LoRA | None:
    return split_node(architecture.node)[0].adapter


def _with_sources(new: Arrays, old: Arrays) -> tuple[Arrays, Sources]:
    adapters = set(adapter_paths(new))
    return new, {path: Source(path) for path in new if path in old and path not in adapters}
