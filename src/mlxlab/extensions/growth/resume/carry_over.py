"""A checkpoint for a changed model: its weights, their average and the optimizer state, with a report of all three."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import mlx.core as mx

from mlxlab.checkpoint.arrays import Arrays, shapes
from mlxlab.checkpoint.parameter_names import CODES, normalized_names
from mlxlab.checkpoint.store import Checkpoint
from mlxlab.checkpoint.transfer import Rules, Transfer, transfer
from mlxlab.checkpoint.transfer_report import CARRIED, Outcome, TransferRecord, TransferReport
from mlxlab.extensions.growth.arrays import Source
from mlxlab.extensions.growth.operations.changes import CHANGES
from mlxlab.extensions.growth.optimizer_state import (
    OptimizerReport,
    WeightChange,
    average_of,
    frozen_as_evaluated,
    read_moments,
    transfer_optimizer,
)
from mlxlab.models.adapters.arrays import adapted_layers
from mlxlab.models.adapters.layout import layout_of
from mlxlab.models.adapters.lora import merged_weight
from mlxlab.models.build import Architecture
from mlxlab.models.options import split_node
from mlxlab.training.optim.groups import (
    GroupChanges,
    GroupOptions,
    describe_changes,
    group_changes,
    hyperparameters_by_path,
)

OF_LAYERS = ("stack", "widen")  # operations that adapters can go through
OF_TABLES = ("resize_vocabulary", "grow_vocabulary")
TABLES = (
    "backbone.embedding",
    "backbone.encoder.embedding",
    "head.out",
)  # what a vocabulary is an axis of


@dataclass(frozen=True)
class ModelChange:
    """What leads from one architecture to another.

    Args:
        new_arrays: gives the weights of a new model, not drawn.
        seed: of what is drawn.
        old_groups, new_groups: the groups of weights in the config of the checkpoint, and in that of the run.
    """

    before: Architecture
    operations: Sequence[dict[str, Any]]
    after: Architecture
    new_arrays: Callable[[Architecture], Arrays]
    seed: int
    old_groups: GroupOptions
    new_groups: GroupOptions


class CarriedOver(NamedTuple):
    """The checkpoint for the new model, what became of the arrays of the old one, and the digest of those.

    `groups` are the trained weights with another learning rate or decay than before.
    """

    checkpoint: Checkpoint
    report: TransferReport
    optimizer: OptimizerReport
    groups: GroupChanges
    digest: str = ""

    def record(self) -> TransferRecord:
        return TransferRecord(
            source=str(self.checkpoint.path),
            digest=self.digest,
            step=self.checkpoint.step,
            weights=self.report.as_json(),
            optimizer=self.optimizer.as_json(),
            groups=self.groups,
        )

    def lines(self) -> list[str]:
        """For the terminal."""
        lines = [
            *self.report.lines(self.checkpoint.path.name),
            self.optimizer.line(),
            describe_changes(self.groups),
        ]
        return [*filter(None, lines)]


def carry_over(
    checkpoint: Checkpoint,
    change: ModelChange,
    weights: Arrays,
    optimizer: Arrays,
    *,
    by_shape: bool,
) -> CarriedOver:
    """The checkpoint of the model after a change. Both hold the trained weights; the averages are with the optimizer.

    Args:
        weights: those of the new model, drawn.
        optimizer: the state of its optimizer before the first step.
        by_shape: see `transfer_optimizer`.

    Raises:
        ConfigError: an operation does not fit the model.
    """
    old, state = checkpoint.weights, checkpoint.optimizer
    new, changes = change_weights(old, change, weights)
    average = average_of(state)
    averages = change_weights(old | average, change, weights)[0].weights if average else new.weights
    new.weights = frozen_as_evaluated(new.weights, averages, optimizer)
    moments, report = transfer_optimizer(
        state, optimizer, changes, shapes(weights), averages, by_shape=by_shape
    )
    mx.eval(new.weights, moments)
    architecture = {"architecture": change.after.node, "vocab_size": change.after.vocab_size}
    saved: Any = {**checkpoint.state, **architecture}
    groups = _changed_groups(change, changes, read_moments(optimizer, shapes(weights)), weights)
    carried = replace(checkpoint, weights=new.weights, optimizer=moments, state=saved)
    return CarriedOver(carried, new.report, report, groups)


def change_weights(
    old: Arrays, change: ModelChange, expected: Arrays
) -> tuple[Transfer, list[WeightChange]]:
    """The weights of the new model from those of the old one, and the changes that led there."""
    current, architecture, changes = old, change.before, list[WeightChange]()
    origins = {path: Origin(path, "matched") for path in old}  # of what is still as it was
    if change.operations:
        growable = _growable(change, old)
        is_renamed = old.keys() != {*normalized_names(old, expected).values()}
        if growable != architecture or is_renamed:
            first = transfer(old, change.new_arrays(growable), _rules(architecture, growable))
            changes.append(_weight_change(current, first))
            origins = {
                path: Origin(source, first.outcomes[path])
                for path, source in first.all_sources.items()
            }
            current, architecture = first.weights, growable
    for operation in change.operations:
        step: Any = CHANGES[operation["op"]]
        grown, sources = step.arrays(operation, architecture, current, change.seed)
        changes.append(WeightChange(shapes(current), sources))
        origins = {
            path: origins[source.path]._replace(
                is_moved=origins[source.path].is_moved or source.path != path
            )
            for path, source in sources.items()
            if source.path in origins and not source.gathers
        }
        current, architecture = grown, step.node(operation, architecture)
    last = transfer(current, expected, _rules(architecture, change.after))
    changes.append(_weight_change(current, last))
    return _finished(last, origins, old, change), changes


class Origin(NamedTuple):
    """The path in the checkpoint of an array that no operation changed, and what was done with it."""

    path: str
    outcome: Outcome
    is_moved: bool = False  # to another layer


def _changed_groups(
    change: ModelChange, steps: Sequence[WeightChange], trained: Collection[str], expected: Arrays
) -> GroupChanges:
    """The trained weights with another learning rate or decay than those that they were made of."""
    sources = {path: path for path in steps[0].shapes}
    for step in steps:
        sources = {
            path: sources[source.path]
            for path, source in step.sources.items()
            if source.path in sources
        }
    names = normalized_names(steps[0].shapes, expected)
    old = hyperparameters_by_path([*names.values()], change.old_groups)
    new = hyperparameters_by_path([*expected], change.new_groups)
    return group_changes(
        old, new, {path: names[source] for path, source in sources.items() if path in trained}
    )


def _growable(change: ModelChange, arrays: Arrays) -> Architecture:
    """The old architecture in a form that the operations take: not quantised, without those adapters in their way."""
    node = dict(change.before.node)
    if split_node(node)[0].quantization.bits is not None:
        node["quantization"] = {**node["quantization"], "bits": None}
    names = {operation["op"] for operation in change.operations}
    adapter, layers = split_node(node)[0].adapter, adapted_layers(arrays)
    in_the_way = names - {*OF_LAYERS, *OF_TABLES} or (
        names & {*OF_TABLES} and {*TABLES} & {*layers}
    )
    if adapter is not None and (adapter.dora or in_the_way):
        node["adapter"] = None
    return Architecture(node, change.before.vocab_size)


def _rules(before: Architecture, after: Architecture) -> Rules:
    return Rules(old=layout_of(before.node), new=layout_of(after.node), merge=merged_weight)


def _weight_change(before: Arrays, result: Transfer) -> WeightChange:
    return WeightChange(
        shapes(before), {path: Source(source) for path, source in result.sources.items()}
    )


def _finished(
    last: Transfer, origins: dict[str, Origin], old: Arrays, change: ModelChange
) -> Transfer:
    """The transfer with the outcomes of all changes. Codes of weights that nothing changed are as they were."""
    result = Transfer(dict(last.weights), last.sources)
    same_codes = replace(layout_of(change.before.node), scale=1.0) == replace(
        layout_of(change.after.node), scale=1.0
    )
    restored: Arrays = {}
    for path, source in last.all_sources.items():
        origin, stem = origins.get(source), path.removesuffix("weight")
        if origin is None or stem == path or {last.outcomes[path], origin.outcome} != {"converted"}:
            continue
        old_stem = origin.path.removesuffix("weight")
        parts = [part for part in ("weight", *CODES) if same_codes and stem + part in last.weights]
        restored |= {stem + part: old[old_stem + part] for part in parts}
    result.weights.update(restored | (_old_rows(last.weights, old, change) if same_codes else {}))
    for path, outcome in last.outcomes.items():
        origin = origins.get(last.all_sources.get(path, ""))
        if outcome in CARRIED and outcome != "merged" and (origin is None or origin.is_moved):
            outcome = "grown"
        elif path in restored:
            outcome = "matched"
        elif (
            outcome in ("matched", "renamed") and origin is not None and origin.outcome != "matched"
        ):
            outcome = origin.outcome
        result.outcomes[path] = outcome
    result.report = last.report.with_outcomes(result.outcomes)
    return result


def _old_rows(new: Arrays, old: Arrays, change: ModelChange) -> Arrays:
    """Quantised tables to which only tokens were appended, with the old rows as they were."""
    operations, rows, result = (
        {operation["op"] for operation in change.operations},
        change.before.vocab_size,
        Arrays(),
    )
    if "resize_vocabulary" in operations and "grow_width" not in operations:
        for stem in [f"{table}.{base}" for table in TABLES for base in ("", "base.")]:
            paths = [
                stem + part
                for part in ("weight", *CODES)
                if stem + part in old and f"{stem}scales" in new
            ]
            result |= {path: mx.concatenate([old[path], new[path][rows:]]) for path in paths}
    return result
