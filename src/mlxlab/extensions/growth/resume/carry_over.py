"""A checkpoint for a changed model: its weights, their average and the optimizer state."""

from collections.abc import Callable, Sequence
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
    transfer_optimizer,
)
from mlxlab.models.adapters.arrays import adapted_layers
from mlxlab.models.adapters.layout import layout_of
from mlxlab.models.adapters.lora import merged_weight
from mlxlab.models.build import Architecture
from mlxlab.models.options import split_node

OF_LAYERS = {"stack", "widen"}  # operations that adapters can go through
OF_TABLES = {"resize_vocabulary"}
TABLES = {"backbone.embedding", "backbone.encoder.embedding", "head.out"}  # with a row per token


@dataclass(frozen=True)
class ModelChange:
    """What leads from one architecture to another.

    Args:
        new_arrays: gives the weights of a new model, not drawn.
        seed: of what is drawn.
    """

    before: Architecture
    operations: Sequence[dict[str, Any]]
    after: Architecture
    new_arrays: Callable[[Architecture], Arrays]
    seed: int


class CarriedOver(NamedTuple):
    """The checkpoint for the new model, and what became of the arrays of the old one.

    Args:
        digest: of the arrays of the old one.
    """

    checkpoint: Checkpoint
    report: TransferReport
    optimizer: OptimizerReport
    digest: str = ""

    def record(self) -> TransferRecord:
        return TransferRecord(
            source=str(self.checkpoint.path),
            digest=self.digest,
            step=self.checkpoint.step,
            weights=self.report.as_json(),
            optimizer=self.optimizer.as_json(),
        )

    def lines(self) -> list[str]:
        """For the terminal."""
        return [*self.report.lines(self.checkpoint.path.name), self.optimizer.line()]


class Origin(NamedTuple):
    """The path in the checkpoint of an array that no operation changed, and what became of it."""

    path: str
    outcome: Outcome
    is_moved: bool = False  # to another layer


def carry_over(
    checkpoint: Checkpoint,
    change: ModelChange,
    weights: Arrays,
    optimizer: Arrays,
    *,
    by_shape: bool,
) -> CarriedOver:
    """The checkpoint of the model after a change.

    Both hold the trained weights; the averages are with the optimizer.

    Args:
        weights: those of the new model, drawn.
        optimizer: the state of its optimizer before the first step.
        by_shape: see `transfer_optimizer`.

    Raises:
        ConfigError: an operation does not fit the model.
    """
    old = checkpoint.weights
    new, changes = change_weights(old, change, weights)
    averages = new.weights
    average = average_of(checkpoint.optimizer)
    if average:
        averages = change_weights(old | average, change, weights)[0].weights
    new.weights = frozen_as_evaluated(new.weights, averages, optimizer)
    moments, report = transfer_optimizer(
        checkpoint.optimizer, optimizer, changes, shapes(weights), averages, by_shape=by_shape
    )
    mx.eval(new.weights, moments)
    architecture = {"architecture": change.after.node, "vocab_size": change.after.vocab_size}
    state: Any = {**checkpoint.state, **architecture}
    carried = replace(checkpoint, weights=new.weights, optimizer=moments, state=state)
    return CarriedOver(carried, new.report, report)


def change_weights(
    old: Arrays, change: ModelChange, expected: Arrays
) -> tuple[Transfer, list[WeightChange]]:
    """The weights of the new model from those of the old one, and the changes that led there."""
    current = old
    architecture = change.before
    changes: list[WeightChange] = []
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
            current = first.weights
            architecture = growable
    for operation in change.operations:
        step: Any = CHANGES[operation["op"]]
        grown, sources = step.arrays(operation, architecture, current, change.seed)
        changes.append(WeightChange(shapes(current), sources))
        origins = _moved_origins(origins, sources)
        architecture = step.node(operation, architecture)
        current = grown
    last = transfer(current, expected, _rules(architecture, change.after))
    changes.append(_weight_change(current, last))
    return _finished(last, origins, old, change), changes


def _growable(change: ModelChange, arrays: Arrays) -> Architecture:
    """The old architecture in a form that the operations take.

    It is not quantised, and has no adapters that are in their way.
    """
    node = dict(change.before.node)
    options = split_node(node)[0]
    if options.quantization.bits is not None:
        node["quantization"] = {**node["quantization"], "bits": None}
    if options.adapter is not None:
        names = {operation["op"] for operation in change.operations}
        has_adapted_tables = bool(TABLES & set(adapted_layers(arrays)))
        in_the_way = names - OF_LAYERS - (set() if has_adapted_tables else OF_TABLES)
        if options.adapter.dora or in_the_way:
            node["adapter"] = None
    return Architecture(node, change.before.vocab_size)


def _rules(before: Architecture, after: Architecture) -> Rules:
    return Rules(old=layout_of(before.node), new=layout_of(after.node), merge=merged_weight)


def _weight_change(before: Arrays, result: Transfer) -> WeightChange:
    sources = {path: Source(source) for path, source in result.sources.items()}
    return WeightChange(shapes(before), sources)


def _moved_origins(origins: dict[str, Origin], sources: dict[str, Source]) -> dict[str, Origin]:
    """The origins of the arrays that an operation left as they are, by their new paths."""
    result = {}
    for path, source in sources.items():
        origin = origins.get(source.path)
        if origin is not None and not source.gathers:
            is_moved = origin.is_moved or source.path != path
            result[path] = origin._replace(is_moved=is_moved)
    return result


def _finished(
    last: Transfer, origins: dict[str, Origin], old: Arrays, change: ModelChange
) -> Transfer:
    """The transfer with the outcomes of all changes, and old codes of weights that are as before."""
    result = Transfer(dict(last.weights), last.sources)
    before = replace(layout_of(change.before.node), scale=1.0)
    has_same_codes = before == replace(layout_of(change.after.node), scale=1.0)
    for path, outcome in last.outcomes.items():
        origin = origins.get(last.all_sources.get(path, ""))
        was_converted = origin is not None and outcome == origin.outcome == "converted"
        if origin is not None and was_converted and has_same_codes:
            for old_path, new_path in _code_paths(origin.path, path):
                if new_path in last.weights:
                    result.weights[new_path] = old[old_path]
        if outcome in CARRIED and outcome != "merged" and (origin is None or origin.is_moved):
            outcome = "grown"
        elif was_converted and has_same_codes:
            outcome = "matched"
        elif origin is not None and outcome in ("matched", "renamed"):
            outcome = outcome if origin.outcome == "matched" else origin.outcome
        result.outcomes[path] = outcome
    if has_same_codes:
        result.weights.update(_old_rows(last.weights, old, change))
    result.report = last.report.with_outcomes(result.outcomes)
    return result


def _code_paths(old: str, new: str) -> list[tuple[str, str]]:
    """The paths, before and after, of the codes of a quantised weight and of their scales."""
    if not new.endswith("weight"):
        return []
    stems = old.removesuffix("weight"), new.removesuffix("weight")
    return [(stems[0] + part, stems[1] + part) for part in ("weight", *CODES)]


def _old_rows(new: Arrays, old: Arrays, change: ModelChange) -> Arrays:
    """Quantised tables to which only tokens were appended, with the old rows as they were."""
    operations = {operation["op"] for operation in change.operations}
    result: Arrays = {}
    if "resize_vocabulary" in operations and "grow_width" not in operations:
        for path in new.keys() & old.keys():
            layer, _, name = path.rpartition(".")
            is_code = name in ("weight", *CODES) and f"{layer}.scales" in new
            if is_code and layer.removesuffix(".base") in TABLES:
                appended = new[path][change.before.vocab_size :]
                result[path] = mx.concatenate([old[path], appended])
    return result
