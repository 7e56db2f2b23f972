"""The operations that lead from the architecture of a checkpoint to the one that the overrides of a resume ask for."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlxlab.config.issues import KeyPath
from mlxlab.config.resume_overrides import differences
from mlxlab.data.vocabulary.vocabulary_map import VocabularyMap
from mlxlab.errors import ConfigError
from mlxlab.extensions.growth.operations.changes import CHANGES
from mlxlab.models.build import Architecture

Node = dict[str, Any]

FREE = (
    "dropout",
    "branch_dropout",
    "adapter",
    "quantization",
    "freeze",
)  # neither shapes nor what is computed
GROWTH: Mapping[
    str, Callable[[int, int], Node]
] = {  # key -> the operation for its old and its new value
    "num_layers": lambda old, new: {
        "op": "stack",
        "map": [layer * old // new for layer in range(new)],
    },
    "intermediate_size": lambda old, new: {"op": "widen", "feed_forward": new},
    "num_heads": lambda old, new: {"op": "add_heads", "heads": new},
    "hidden_size": lambda old, new: {"op": "grow_width", "hidden_size": new},
}
NEW_TOKENS: Node = {"op": "resize_vocabulary", "source": "mean"}
POSSIBLE = (
    f"a resume can raise {', '.join(GROWTH)} and the vocabulary, untie embeddings, and change {', '.join(FREE)};"
    " for all else start a new run, with model.init_from"
)


def changed_node(
    node: Mapping[str, Any],
    saved: Mapping[str, Any],
    requested: Mapping[str, Any],
    requested_keys: Sequence[KeyPath] = (),
) -> Node:
    """The `model` node of a checkpoint with the changes between two nodes of configs, and no others.

    Args:
        requested_keys: that have the values of `requested` although both configs agree on them; a growth schedule may
            have changed them in `node`.
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


def plan(
    before: Architecture, node: Node, vocab_size: int, vocabulary: VocabularyMap | None = None
) -> tuple[list[Node], Architecture]:
    """The operations of growth, in order, and the architecture after them with the adapters and so on of `node`.

    Args:
        vocabulary: the smaller vocabulary that grows back to all tokens; None appends new tokens.

    Raises:
        ConfigError: `node` differs in something that no operation can change without changing what the model computes.
    """
    operations: list[Node] = []
    after, old = before, before.node
    for key, operation_for in GROWTH.items():
        if _grows(old.get(key), node.get(key)):
            operations.append({"id": "resume", **operation_for(old[key], node[key])})
            after = _after(operations[-1], after, f"model.{key}={node[key]}")
    if vocab_size > before.vocab_size:
        operation = (
            {"op": "grow_vocabulary", "vocabulary": vocabulary} if vocabulary else NEW_TOKENS
        )
        operations.append({"id": "resume", "size": vocab_size, **operation})
        after = _after(operations[-1], after, f"a vocabulary of {vocab_size} tokens")
    _refuse_others(before, after, node, vocab_size)
    free = {key: node[key] for key in (*FREE, "tie_embeddings") if key in node}
    return operations, after.with_keys(**free)


def _after(operation: Node, before: Architecture, title: str) -> Architecture:
    change: Any = CHANGES[operation["op"]]
    try:
        after: Architecture = change.node(operation, before)
    except ConfigError as error:
        raise ConfigError(f"{title}: {error}; {POSSIBLE}") from None
    return after


def _refuse_others(before: Architecture, after: Architecture, node: Node, vocab_size: int) -> None:
    """ConfigError if the requested architecture differs from the one after the operations."""
    allowed = {*FREE, *(["tie_embeddings"] if before.node.get("tie_embeddings") is True else [])}
    refused = [
        f"{path}={new}: was {old} in the checkpoint"
        for key, value in (dict.fromkeys(node) | before.node).items()
        if node.get(key) not in (value, after.node.get(key)) and key not in allowed
        for path, (old, new) in differences({key: value}, {key: node.get(key)}, "model").items()
    ]
    if vocab_size < before.vocab_size:
        refused.append(
            f"a vocabulary of {vocab_size} tokens: was {before.vocab_size} in the checkpoint"
        )
    if refused:
        raise ConfigError(f"{'; '.join(refused)}; {POSSIBLE}")


def _grows(old: object, new: object) -> bool:
    return isinstance(old, int) and isinstance(new, int) and new > old
