"""Operations that lead from one architecture to another, for a checkpoint that goes on with a larger model."""

from typing import Any, NamedTuple

from mlxlab.errors import ConfigError
from mlxlab.growth.arrays import Arrays, Source
from mlxlab.growth.operations import CHANGES
from mlxlab.growth.schema import ArchitectureOperation
from mlxlab.models.build import Architecture

CHANGED_BY = {  # keys of a `model` node that operations change
    *("num_layers", "intermediate_size", "num_heads", "num_kv_heads", "head_dim", "hidden_size", "norm_eps"),
    *("gated_layers", "adapter", "freeze"),
}


class Plan(NamedTuple):
    """Operations in the order in which they are applied, and the architecture after them."""

    operations: list[ArchitectureOperation]
    architecture: Architecture


def plan_growth(old: Architecture, new: Architecture) -> Plan:
    """The operations that turn `old` into `new`; keys that no operation changes are those of `new`.

    Raises:
        ConfigError: no exact operation leads there.
    """
    operations = [{"id": each["op"], "when": {}, **each} for each in _operations(old, new)]
    current = old
    for operation in operations:
        current = CHANGES[operation["op"]].node(operation, current)
    node = {**new.node, **{key: value for key, value in current.node.items() if key in CHANGED_BY}}
    for key in sorted(CHANGED_BY & new.node.keys()):
        wanted = new.node[key]
        if wanted != node.get(key) and wanted not in (old.node.get(key), None) and key != "adapter":
            raise ConfigError(f"model.{key}={wanted}: no operation leads there from {old.node.get(key)}")
    return Plan(operations, Architecture(node, current.vocab_size))  # type: ignore[arg-type]


def apply_plan(plan: Plan, before: Architecture, arrays: Arrays, seed: int) -> tuple[Arrays, dict[str, Source]]:
    """The arrays after all operations of a plan of one operation or more, and their sources in the first model.

    An array made by two operations has the source and the index maps of both, one after the other.
    """
    sources = {path: Source(path) for path in arrays}
    for operation in plan.operations:
        change = CHANGES[operation["op"]]
        arrays, latest = change.arrays(operation, before, arrays, seed)
        before = change.node(operation, before)
        sources = {
            path: Source(sources[each.path].path, sources[each.path].gathers + each.gathers)
            for path, each in latest.items()
            if each.path in sources
        }
    return arrays, sources


def _operations(old: Architecture, new: Architecture) -> list[dict[str, Any]]:
    before, after = old.node, new.node
    operations: list[dict[str, Any]] = []
    if before.get("adapter") and not after.get("adapter"):
        operations.append({"op": "merge_lora"})
    if (count := after["num_layers"]) != (layers := before["num_layers"]):
        operations.append({"op": "stack", "map": [layer * layers // count for layer in range(count)]})
    if after["intermediate_size"] != before["intermediate_size"]:
        operations.append({"op": "widen", "feed_forward": after["intermediate_size"]})
    if after["num_heads"] != before["num_heads"]:
        operations.append({"op": "add_heads", "heads": after["num_heads"]})
    if after["hidden_size"] != before["hidden_size"]:
        operations.append({"op": "grow_width", "hidden_size": after["hidden_size"]})
    if new.vocab_size != old.vocab_size:
        operations.append({"op": "resize_vocabulary", "size": new.vocab_size})
    adapter = after.get("adapter")
    if adapter and adapter != before.get("adapter"):
        options = {key: adapter[key] for key in ("rank", "alpha", "targets") if key in adapter}
        operations.append({"op": "set_lora", **options})
    return operations
