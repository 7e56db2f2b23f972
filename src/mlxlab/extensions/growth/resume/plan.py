"""The operations that lead from the architecture of a checkpoint to that of a resume."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlxlab.dotted_keys import KeyPath
from mlxlab.errors import ConfigError
from mlxlab.experiment.resume.changes import differences
from mlxlab.extensions.growth.operations.changes import CHANGES
from mlxlab.models.build import Architecture

Node = dict[str, Any]

# They change neither shapes nor what is computed.
FREE = ("dropout", "branch_dropout", "adapter", "quantization", "freeze")
# The operation for the old and the new value of a key.
GROWTH: Mapping[str, Callable[[int, int], Node]] = {
    "num_layers": lambda old, new: {
        "op": "stack",
        "map": [layer * old // new for layer in range(new)],
    },
    "intermediate_size": lambda old, new: {"op": "widen", "feed_forward": new},
    "num_heads": lambda old, new: {"op": "add_heads", "heads": new},
    "hidden_size": lambda old, new: {"op": "grow_width", "hidden_size": new},
}
POSSIBLE = (
    f"a resume can raise {', '.join(GROWTH)} and the vocabulary, untie embeddings,"
    f" and change {', '.join(FREE)}; for all else start a new run, with model.init_from"
)


def changed_node(
    node: Mapping[str, Any],
    saved: Mapping[str, Any],
    requested: Mapping[str, Any],
    requested_keys: Sequence[KeyPath] = (),
) -> Node:
    """The `model` node of a checkpoint with the changes between two nodes of configs, and no others.

    Args:
        requested_keys: that have the values of `requested` although both configs agree on them; a
            growth schedule may have changed them in `node`.
    """
    result = dict(node)
    for key in {**saved, **requested}:
        old, new = saved.get(key, ...), requested.get(key, ...)  # ...: there is none
        below = [path[1:] for path in requested_keys if path[0] == key]
        if old == new and not below:
            continue
        if new is ...:
            result.pop(key, None)
        elif () not in below and all(isinstance(each, dict) for each in (old, new, node.get(key))):
            result[key] = changed_node(node[key], old, new, below)
        else:
            result[key] = new
    return result


def plan_growth(
    before: Architecture, node: Node, vocab_size: int
) -> tuple[list[Node], Architecture]:
    """The operations of growth, in order, and the architecture after them and the rest of `node`.

    Raises:
        ConfigError: `node` differs in something that no operation can change without changing what
            the model computes.
    """
    operations: list[Node] = []
    after = before
    for key, operation_for in GROWTH.items():
        old, new = before.node.get(key), node.get(key)
        if isinstance(old, int) and isinstance(new, int) and new > old:
            operations.append({"id": "resume", **operation_for(old, new)})
            after = _after(operations[-1], after, f"model.{key}={new}")
    if vocab_size > before.vocab_size:
        operations.append(
            {"id": "resume", "op": "resize_vocabulary", "size": vocab_size, "source": "mean"}
        )
        after = _after(operations[-1], after, f"a vocabulary of {vocab_size} tokens")
    _refuse_others(before, after, node, vocab_size)
    free = {key: node[key] for key in (*FREE, "tie_embeddings") if key in node}
    return operations, after.with_keys(**free)


def _after(operation: Node, before: Architecture, title: str) -> Architecture:
    try:
        return CHANGES[operation["op"]].node(operation, before)
    except ConfigError as error:
        raise ConfigError(f"{title}: {error}; {POSSIBLE}") from None


def _refuse_others(before: Architecture, after: Architecture, node: Node, vocab_size: int) -> None:
    """ConfigError if the requested architecture differs from the one after the operations."""
    allowed = {*FREE}
    if before.node.get("tie_embeddings") is True:
        allowed.add("tie_embeddings")
    refused = []
    for key in dict.fromkeys([*node, *before.node]):
        old, new = before.node.get(key), node.get(key)
        if key not in allowed and new not in (old, after.node.get(key)):
            for path, (was, value) in differences({key: old}, {key: new}, "model").items():
                refused.append(f"{path}={value}: was {was} in the checkpoint")
    if vocab_size < before.vocab_size:
        was = before.vocab_size
        refused.append(f"a vocabulary of {vocab_size} tokens: was {was} in the checkpoint")
    if refused:
        raise ConfigError(f"{'; '.join(refused)}; {POSSIBLE}")
