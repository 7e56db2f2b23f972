"""A checkpoint for a changed model: its weights, their average and the optimizer state."""

from dataclasses import replace
from typing import Any, NamedTuple

import mlx.core as mx

from mlxlab.checkpoint.arrays import AVERAGE, TRAINED, Arrays, digest, swap_weights
from mlxlab.checkpoint.parameter_names import normalized_names
from mlxlab.checkpoint.store import Checkpoint
from mlxlab.checkpoint.transfer import Rules, Transfer, transfer
from mlxlab.checkpoint.transfer_report import CARRIED, Outcome, TransferRecord, TransferReport
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
from mlxlab.models.build import Architecture
from mlxlab.models.layers import named_parameters
from mlxlab.models.options import split_node
from mlxlab.run.resume.policy import NewModel, Plan

OF_LAYERS = {"stack", "widen"}  # operations that adapters can go through


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


class Origin(NamedTuple):
    """The array of the checkpoint whose rows an array begins with, and what became of it before the operations.

    Args:
        is_same: no operation moved it to another layer, or gave it more rows.
    """

    path: str
    outcome: Outcome
    is_same: bool = True


def carry_over(
    checkpoint: Checkpoint,
    plan: Plan,
    new_model: NewModel,
    weights: Arrays,
    optimizer: Arrays,
    *,
    by_shape: bool,
) -> CarriedOver:
    """The checkpoint of the model after a change.

    Args:
        new_model: builds a model of another architecture, without weights.
        weights: those of the new model, drawn.
        optimizer: the state of its optimizer before the first step.
        by_shape: see `transfer_optimizer`.

    Raises:
        ConfigError: an operation does not fit the model.
    """
    # The trained weights are changed as such; their averages are with the optimizer.
    old, state = swap_weights(checkpoint.weights, checkpoint.optimizer, TRAINED, AVERAGE)
    new, changes = change_weights(old, plan, new_model, weights)
    averages = new.weights
    average = average_of(state)
    if average:
        averages = change_weights(old | average, plan, new_model, weights)[0].weights
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


def change_weights(
    old: Arrays, plan: Plan, new_model: NewModel, expected: Arrays
) -> tuple[Transfer, list[Sources]]:
    """The weights of the new model from those of the old one, and the changes that led there."""
    current = old
    architecture = plan.before
    changes: list[Sources] = []
    origins = {path: Origin(path, "matched") for path in old}
    if plan.operations:
        growable = _growable(plan)
        is_renamed = old.keys() != {*normalized_names(old, expected).values()}
        if growable != architecture or is_renamed:
            plain = named_parameters(new_model(growable))
            first = transfer(old, plain, _rules(architecture, growable))
            changes.append(_sources(first))
            origins = {
                path: Origin(source, first.outcomes[path]) for path, source in first.sources.items()
            }
            current = first.weights
            architecture = growable
    seed = model_seed(plan.cfg)
    for operation in plan.operations:
        step: Any = CHANGES[operation["op"]]
        current, sources = step.arrays(operation, architecture, current, seed)
        changes.append(sources)
        origins = {
            path: origins[source.path]._replace(
                is_same=origins[source.path].is_same and source == Source(path)
            )
            for path, source in sources.items()
            if source.path in origins and source.keeps_rows
        }
        architecture = step.node(operation, architecture)
    last = transfer(current, expected, _rules(architecture, plan.after))
    changes.append(_sources(last))
    _finish(last, origins, old, plan)
    return last, changes


def _growable(plan: Plan) -> Architecture:
    """The old architecture in a form that the operations take.

    It is not quantised, and has no adapters that are in their way.
    """
    node = dict(plan.before.node)
    options = split_node(node)[0]
    if options.quantization.bits is not None:
        node["quantization"] = {**node["quantization"], "bits": None}
    if options.adapter is not None:
        if options.adapter.dora or not {each["op"] for each in plan.operations} <= OF_LAYERS:
            node["adapter"] = None
    return Architecture(node, plan.before.vocab_size)


def _rules(before: Architecture, after: Architecture) -> Rules:
    return Rules(old=layout_of(before.node), new=layout_of(after.node), merge=merged_weight)


def _sources(result: Transfer) -> Sources:
    """The sources of the arrays that were taken as they are."""
    return {
        path: Source(source)
        for path, source in result.sources.items()
        if result.outcomes[path] in ("matched", "renamed")
    }


def _finish(last: Transfer, origins: dict[str, Origin], old: Arrays, plan: Plan) -> None:
    """Gives arrays the outcomes of all changes, and rows of quantised weights that are as before their old codes."""
    layouts = (layout_of(each.node) for each in (plan.before, plan.after))
    before, after = (replace(layout, scale=1.0) for layout in layouts)
    for path, outcome in last.outcomes.items():
        origin = origins.get(last.sources.get(path, ""))
        was_quantised = origin is not None and outcome == origin.outcome == "converted"
        has_codes = was_quantised and before == after
        if origin is not None and has_codes:
            name = path.rpartition(".")[2]
            codes = old[origin.path.removesuffix("weight") + name]
            last.weights[path] = mx.concatenate([codes, last.weights[path][len(codes) :]])
        if outcome not in CARRIED or outcome == "merged":
            continue
        if origin is None or not origin.is_same:
            last.outcomes[path] = "grown"
        elif has_codes:
            last.outcomes[path] = "matched"
        elif outcome in ("matched", "renamed") and origin.outcome != "matched":
            last.outcomes[path] = origin.outcome
