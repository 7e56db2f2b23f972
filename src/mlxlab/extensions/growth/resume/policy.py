"""Resumes a run with a larger model, or with other adapters."""

from dataclasses import dataclass, replace
from typing import Literal

from mlxlab.checkpoint.arrays import Arrays
from mlxlab.checkpoint.parameter_names import normalized_names
from mlxlab.checkpoint.store import Checkpoint
from mlxlab.data.dataset import DataModule
from mlxlab.errors import ConfigError
from mlxlab.extensions.growth.resume.carry_over import CarriedOver, carry_over
from mlxlab.extensions.growth.resume.plan import (
    changed_node,
    plan_growth,
    requested_against_growth,
)
from mlxlab.models.build import train_new_weights
from mlxlab.models.layers import named_parameters
from mlxlab.run.resume.policy import NewModel, Plan, admit_data, refuse_tokenizer
from mlxlab.schema.constraints import Probability
from mlxlab.schema.dotted_keys import value_at
from mlxlab.training.optim.optimizers import flatten_arrays
from mlxlab.training.state import TrainState


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
        refuse_tokenizer(plan.changes)
        requested = requested_against_growth(plan.cfg, plan.checkpoint)
        return self.repeat(replace(plan, changes=plan.changes | requested, requested=[*requested]))

    def repeat(self, plan: Plan) -> Plan:
        before = plan.before
        new = plan.cfg["model"]
        saved = plan.checkpoint.state["metadata"]["config"]["model"]
        requested = [key for key in plan.requested if key.startswith("model.")]
        node = changed_node(
            before.node, train_new_weights(saved), train_new_weights(new), requested
        )
        operations, after = plan_growth(before, node)
        return replace(plan, operations=operations, after=after)

    def carry(
        self, plan: Plan, state: TrainState, data: DataModule, new_model: NewModel
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
            new_model,
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
