"""A checkpoint for a changed model: its weights, their average and the optimizer state."""

from dataclasses import replace
from typing import Any, NamedTuple

import mlx.core as mx

from mlxlab.checkpoint.arrays import AVERAGE, TRAINED, Arrays, digest, swap_weights
from mlxlab.checkpoint.store import Checkpoint
from mlxlab.checkpoint.transfer import Rules, Transfer, transfer
from mlxlab.checkpoint.transfer_report import TransferRecord, TransferReport
from mlxlab.evaluation.parts.model import model_seed
from mlxlab.extensions.growth.arrays import Source, Sources
from mlxlab.extensions.growth.grow import CHANGES
from mlxlab.extensions.growth.optimizer_state import (
    OptimizerReport,
    average_of,
    frozen_as_evaluated,
    transfer_optimizer,
)
from mlxlab.models.adapters.arrays import layout_of
from mlxlab.models.adapters.lora import merged_weight
from mlxlab.run.resume.policy import Plan


class CarriedOver(NamedTuple):
    """The checkpoint for the new model, and what became of the arrays of the old one.

    Args:
        digest: of the arrays of the old one.
    """

    checkpoint: Checkpoint
    report: TransferReport
    optimizer: OptimizerReport
    digest: str

    def record(self) -> TransferRecord:
        return TransferRecord(
            source=str(self.checkpoint.path),
            digest=self.digest,
            step=self.checkpoint.step,
            weights=self.report.as_json(),
            optimizer=self.optimizer.as_json(),
        )

    def lines(self) -> list[str]:
        """Describes weights and optimizer state on the terminal."""
        return [*self.report.lines(self.checkpoint.path.name), self.optimizer.line()]


def carry_over(
    checkpoint: Checkpoint,
    plan: Plan,
    weights: Arrays,
    optimizer: Arrays,
    *,
    by_shape: bool,
) -> CarriedOver:
    """The checkpoint of the model after a change.

    Args:
        weights: those of the new model, drawn.
        optimizer: the state of its optimizer before the first step.
        by_shape: see `transfer_optimizer`.

    Raises:
        ConfigError: an operation does not fit the model.
    """
    # The trained weights are changed as such; their averages are with the optimizer.
    old, state = swap_weights(checkpoint.weights, checkpoint.optimizer, TRAINED, AVERAGE)
    new, changes = change_weights(old, plan, weights)
    averages = new.weights
    average = average_of(state)
    if average:
        averages = change_weights(old | average, plan, weights)[0].weights
    trained = frozen_as_evaluated(new.weights, averages, optimizer)
    moments, report = transfer_optimizer(
        state, optimizer, old, changes, averages, by_shape=by_shape
    )
    mx.eval(trained, moments)
    trained, moments = swap_weights(trained, moments, AVERAGE, TRAINED)
    architecture = {"architecture": plan.after.node, "vocab_size": plan.after.vocab_size}
    saved: Any = {**checkpoint.state, **architecture}
    carried = replace(checkpoint, weights=trained, optimizer=moments, state=saved)
    return CarriedOver(carried, new.report, report, digest(checkpoint.weights))


def change_weights(old: Arrays, plan: Plan, expected: Arrays) -> tuple[Transfer, list[Sources]]:
    """The weights of the new model from those of the old one, and the changes that led there."""
    current = old
    architecture = plan.before
    changes: list[Sources] = []
    same = set(old)  # paths of arrays that no operation has made
    seed = model_seed(plan.cfg)
    for operation in plan.operations:
        step: Any = CHANGES[operation["op"]]
        current, sources = step.arrays(operation, architecture, current, seed)
        changes.append(sources)
        same = {path for path in same if sources.get(path) == Source(path)}
        architecture = step.node(operation, architecture)
    rules = Rules(
        old=layout_of(architecture.node), new=layout_of(plan.after.node), merge=merged_weight
    )
    last = transfer(current, expected, rules)
    changes.append(
        {
            path: Source(source)
            for path, source in last.sources.items()
            if last.outcomes[path] in ("matched", "renamed")
        }
    )
    for path, source in last.sources.items():
        if source not in same and last.outcomes[path] != "merged":
            last.outcomes[path] = "grown"
    return last, changes
