"""Resumes a run with a larger model, or with other adapters: plans the operations that lead there."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Literal

from mlxlab.checkpoint.arrays import Arrays
from mlxlab.checkpoint.parameter_names import normalized_names
from mlxlab.checkpoint.store import Checkpoint
from mlxlab.data.dataset import DataModule
from mlxlab.errors import ConfigError
from mlxlab.extensions.growth.carry_over import CarriedOver, carry_over
from mlxlab.extensions.growth.grow import CHANGES
from mlxlab.models.build import Architecture, train_new_weights
from mlxlab.models.layers import named_parameters
from mlxlab.past_runs.changes import copy_key, differences
from mlxlab.run.resume.policy import TOKENIZER, Plan, admit_data, refuse_change
from mlxlab.schema.constraints import Probability
from mlxlab.schema.dotted_keys import value_at
from mlxlab.training.optim.optimizers import flatten_arrays
from mlxlab.training.state import TrainState

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
    f"a resume can raise {', '.join(GROWTH)}, untie embeddings,"
    f" and change {', '.join(FREE)}; for all else start a new run, with model.init_from"
)


@dataclass(frozen=True)
class GrowthPolicy:
    """The model may become larger. Implements `ResumePolicy`.

    Args:
        allow_data_change: resume although the data, or its preprocessing, has changed.
        min_match: share of a model's arrays that a checkpoint, or `model.init_from`, must have; not counted are those
            that an override makes new.
        optimizer_transfer: path gives the optimizer state of changed models to the same weights, shape then also to
            new ones of the same shape.
    """

    allow_data_change: bool
    min_match: Probability = 1.0
    optimizer_transfer: Literal["path", "shape"] = "path"

    def plan(self, plan: Plan) -> Plan:
        refuse_change(plan.changes, TOKENIZER, "tokenizer")
        before = plan.before
        saved = plan.checkpoint.state["metadata"]["config"]["model"]
        node = changed_node(
            before.node, train_new_weights(saved), train_new_weights(plan.cfg["model"])
        )
        operations, after = plan_growth(before, node)
        return replace(plan, operations=operations, after=after)

    def carry(
        self, plan: Plan, state: TrainState, data: DataModule
    ) -> tuple[Checkpoint, CarriedOver | None]:
        checkpoint = admit_data(plan.checkpoint, data, allow_change=self.allow_data_change)
        weights = named_parameters(state.model)
        if plan.before == plan.after and not _is_renamed(checkpoint.weights, weights):
            return checkpoint, None

        target = "trainer.optimizer._target_"
        optimizer = value_at(checkpoint.state["metadata"]["config"], target)
        if value_at(plan.cfg, target) != optimizer:
            expected = f"cannot change together with the model, was {optimizer}"
            raise ConfigError(f"trainer.optimizer: {expected}")
        carried = carry_over(
            checkpoint,
            plan,
            weights,
            flatten_arrays(state.optimizer.state),
            by_shape=self.optimizer_transfer == "shape",
        )
        carried.report.require(self.min_match, str(checkpoint.path))
        return carried.checkpoint, carried


def _is_renamed(weights: Arrays, expected: Arrays) -> bool:
    """Whether a checkpoint has other names for the arrays of the model."""
    names = {*normalized_names(weights, expected).values()}
    return weights.keys() != expected.keys() == names


def changed_node(node: Node, saved: Mapping[str, Any], requested: Mapping[str, Any]) -> Node:
    """The `model` node of a checkpoint with the changes between two nodes of configs, and no others."""
    result: Node = {"model": deepcopy(node)}
    for key in differences(saved, requested, "model"):
        copy_key(key, {"model": requested}, result)
    return result["model"]


def plan_growth(before: Architecture, node: Node) -> tuple[list[Node], Architecture]:
    """The operations of growth, in order, and the architecture after them and the rest of `node`.

    Raises:
        ConfigError: `node` differs in something that no operation can change without changing what
            the model computes.
    """
    operations: list[Node] = []
    after = before
    for key, operation_for in GROWTH.items():
        old = before.node.get(key)
        new = node.get(key)
        if isinstance(old, int) and isinstance(new, int) and new > old:
            operation = {"id": "resume", **operation_for(old, new)}
            operations.append(operation)
            try:
                after = CHANGES[operation["op"]].node(operation, after)
            except ConfigError as error:
                raise ConfigError(f"model.{key}={new}: {error}; {POSSIBLE}") from None
    _refuse_others(before, after, node)
    free = {key: node[key] for key in (*FREE, "tie_embeddings") if key in node}
    return operations, after.with_keys(**free)


def _refuse_others(before: Architecture, after: Architecture, node: Node) -> None:
    """ConfigError if the requested architecture differs from the one after the operations."""
    allowed = {*FREE}
    if before.node.get("tie_embeddings") is True:
        allowed.add("tie_embeddings")
    refused = []
    for key in dict.fromkeys([*node, *before.node]):
        old = before.node.get(key)
        new = node.get(key)
        if key not in allowed and new not in (old, after.node.get(key)):
            for path, (was, value) in differences({key: old}, {key: new}, "model").items():
                refused.append(f"{path}={value}: was {was} in the checkpoint")
    if refused:
        raise ConfigError(f"{'; '.join(refused)}; {POSSIBLE}")
