"""Operations that change what is trained: adapters that are added, merged or replaced, and frozen parameters."""

from typing import Any

from mlxlab.checkpoint.arrays import Arrays
from mlxlab.errors import ConfigError
from mlxlab.extensions.growth.arrays import Source, Sources, has_classifier, same_arrays
from mlxlab.extensions.growth.operations.schema import Freeze, MergeLoRA, SetLoRA, Unfreeze
from mlxlab.models.adapters.apply import packing_of
from mlxlab.models.adapters.arrays import adapted_layers, insert, merge, rerank
from mlxlab.models.adapters.freeze import adapter_paths, select, select_paths
from mlxlab.models.build import Architecture
from mlxlab.models.options import LoRA, split_node
from mlxlab.models.pretrained.load import MLX_LM
from mlxlab.terminal.nearest import suggestion

TARGET = "mlxlab.models.options.LoRA"
PROJECTIONS = ("attention.*", "feed_forward.*")  # They get an adapter by default.
# Architectures of mlx-lm name their layers in several ways.
IN_LAYERS = ("*.[0-9]*.*",)


def set_lora_node(operation: SetLoRA, before: Architecture) -> Architecture:
    """The architecture with adapters; ConfigError for other targets than those before."""
    old: dict[str, Any] = before.node.get("adapter") or {}
    rank = operation["rank"]
    targets = operation.get("targets")
    if old and targets is not None and targets != old.get("targets"):
        expected = f"{old.get('targets')}, as before"
        raise ConfigError(f"targets: expected {expected}, got {targets}; use merge_lora first")
    new = {"_target_": TARGET, **old, "rank": rank}
    new["alpha"] = operation.get("alpha") or old.get("alpha") or 2.0 * rank
    if targets is not None:
        new["targets"] = targets
    return before.with_keys(adapter=new)


def set_lora_arrays(
    operation: SetLoRA, before: Architecture, arrays: Arrays, seed: int | None
) -> tuple[Arrays, Sources]:
    """The arrays with adapters, whose optimizer state is new; the frozen weights lose theirs."""
    old = _options(before)
    new = _options(set_lora_node(operation, before))
    assert new is not None
    if old is not None:
        return _with_sources(rerank(arrays, old, new, seed), arrays)
    layers = [
        path.removesuffix(".weight")
        for path, array in sorted(arrays.items())
        if path.endswith(".weight") and array.ndim == 2
    ]
    if has_classifier(arrays):  # A classifier always trains in full.
        layers = [path for path in layers if not path.startswith("head.")]
    default: tuple[str, ...] = PROJECTIONS
    if before.node["_target_"] == MLX_LM:
        default = IN_LAYERS
    chosen = select(new.targets or default, layers, "targets")
    quantization = split_node(before.node)[0].quantization
    packing = None
    if quantization.bits is not None:
        packing = packing_of(quantization)
    return _with_sources(insert(arrays, chosen, new, seed, packing), arrays)


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
    kept = new.keys() & old.keys() - set(adapter_paths(new))
    return new, {path: Source(path) for path in new if path in kept}


def freeze_node(operation: Freeze, before: Architecture) -> Architecture:
    """The architecture with these patterns in `freeze` too."""
    patterns = dict.fromkeys([*(before.node.get("freeze") or ()), *operation["patterns"]])
    return before.with_keys(freeze=[*patterns])


def unfreeze_node(operation: Unfreeze, before: Architecture) -> Architecture:
    """The architecture without these patterns in `freeze`, of which it must have each."""
    frozen = list(before.node.get("freeze") or ())
    patterns = operation.get("patterns")
    if patterns is None:
        return before.with_keys(freeze=[])
    for pattern in patterns:
        if pattern not in frozen:
            nearest = suggestion(pattern, frozen)
            raise ConfigError(f"patterns: {pattern} is not a pattern of model.freeze{nearest}")
    return before.with_keys(freeze=[each for each in frozen if each not in patterns])


def freeze_arrays(
    operation: Freeze, before: Architecture, arrays: Arrays, seed: int | None
) -> tuple[Arrays, Sources]:
    """All arrays; ConfigError if a pattern matches nothing, or nothing is left to train."""
    select_paths(arrays, operation["patterns"], "patterns")
    frozen = select_paths(arrays, freeze_node(operation, before).node["freeze"], "model.freeze")
    is_adapted = bool(adapter_paths(arrays))  # Adapters of frozen layers are trained.
    if len(frozen) == len(arrays) and not is_adapted:
        raise ConfigError("patterns: nothing is left to train")
    return same_arrays(arrays)


def unfreeze_arrays(
    operation: Unfreeze, before: Architecture, arrays: Arrays, seed: int | None
) -> tuple[Arrays, Sources]:
    """All arrays; those that are trained again start with a new optimizer state."""
    return same_arrays(arrays)
