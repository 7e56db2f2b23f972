"""The optimizer state of a changed model: by path, by the map of the weights, or by shape."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import mlx.core as mx

from mlxlab.checkpoint.arrays import AVERAGE, Arrays
from mlxlab.extensions.growth.arrays import Source, Sources, gather_moment

Shapes = Mapping[str, tuple[int, ...]]  # by path


class WeightChange(NamedTuple):
    """A change of the weights: their shapes before it, and what each after it is made of."""

    shapes: Shapes
    sources: Sources


class Leaf(NamedTuple):
    """An array of the state by its path `<group>.<parameter>.<name>`.

    Args:
        parameter: "" for counters and other arrays of no parameter.
    """

    group: str
    parameter: str
    name: str

    @property
    def is_average(self) -> bool:
        return self.parameter != "" and f"{self.group}." == AVERAGE

    @property
    def is_moment(self) -> bool:
        return self.parameter != "" and not self.is_average


@dataclass
class Moments:
    """The statistics of one parameter by their names; `path` and `group` are those before."""

    path: str
    group: str
    arrays: Arrays = field(default_factory=dict)
    is_moved: bool = False

    def after(self, source: Source, shape: tuple[int, ...], path: str) -> "Moments":
        """Those of the parameter at `path`, made of this one of a shape."""
        arrays = {}
        for name, array in self.arrays.items():
            power = 2 if is_second_moment(name, set(self.arrays)) else 1
            arrays[name] = gather_moment(array, axes_of(name, len(shape)), source, power)
        is_moved = self.is_moved or bool(source.gathers) or path != source.path
        return Moments(self.path, self.group, arrays, is_moved)

    @property
    def layout(self) -> dict[str, tuple[tuple[int, ...], mx.Dtype]]:
        """The shapes and types of the statistics."""
        return {name: (array.shape, array.dtype) for name, array in self.arrays.items()}


@dataclass
class OptimizerReport:
    """Parameters by where their optimizer state came from."""

    by_path: list[str] = field(default_factory=list)
    by_map: list[str] = field(default_factory=list)
    by_shape: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, list[str]]:
        return {name.replace("_", " "): paths for name, paths in vars(self).items()}

    @property
    def carried(self) -> int:
        return len(self.by_path) + len(self.by_map) + len(self.by_shape)

    def line(self) -> str:
        counts = [f"{len(paths)} {name}" for name, paths in self.as_json().items()]
        return f"optimizer state: {', '.join(counts)}"


def transfer_optimizer(
    old: Arrays,
    new: Arrays,
    changes: Sequence[WeightChange],
    weights: Shapes,
    averages: Arrays,
    *,
    by_shape: bool,
) -> tuple[Arrays, OptimizerReport]:
    """The arrays of the state `new` before its first step, with what `old` knows of them.

    Args:
        changes: those that led from the old weights to the new ones, at least one.
        weights: shapes of the new weights by path.
        averages: moving averages of the new weights, where there are any.
        by_shape: parameters without a source take the unused state of ones of the same shape, in
            the order of their paths.
    """
    saved = read_moments(old, changes[0].shapes)
    moments = saved
    for change in changes:
        moments = {
            path: moments[source.path].after(source, change.shapes[source.path], path)
            for path, source in change.sources.items()
            if source.path in moments
        }
    report = OptimizerReport()
    used: dict[str, Moments] = {}
    fresh: dict[str, Moments] = {}
    for path, empty in read_moments(new, weights).items():
        if path in moments and moments[path].layout == empty.layout:
            used[path] = moments[path]
            (report.by_map if used[path].is_moved else report.by_path).append(path)
        else:
            fresh[path] = empty

    left = saved.keys() - {each.path for each in used.values()}
    for path in sorted(fresh):
        matches = sorted(name for name in left if saved[name].layout == fresh[path].layout)
        if by_shape and matches:
            used[path] = saved[matches[0]]
            left.remove(matches[0])
            report.by_shape.append(f"{path} from {matches[0]}")
        else:
            report.fresh.append(path)
    report.dropped = sorted(left)
    return _fill(old, new, weights, used, averages), report


def read_moments(state: Arrays, parameters: Shapes) -> dict[str, Moments]:
    """The statistics of every parameter in an optimizer state."""
    result: dict[str, Moments] = {}
    for path, array in state.items():
        leaf = parse_leaf(path, parameters)
        if leaf.is_moment:
            moments = result.setdefault(leaf.parameter, Moments(leaf.parameter, leaf.group))
            moments.arrays[leaf.name] = array
    return result


def _fill(
    old: Arrays, new: Arrays, weights: Shapes, used: Mapping[str, Moments], averages: Arrays
) -> Arrays:
    """The new state. The counters of a group come from that of its first carried parameter."""
    leaves = {path: parse_leaf(path, weights) for path in new}
    groups: dict[str, str | None] = {}  # of the new state -> of the old one
    for leaf in leaves.values():
        if leaf.is_moment and groups.get(leaf.group) is None:
            source = used.get(leaf.parameter)
            groups[leaf.group] = None if source is None else source.group

    result = dict(new)
    for path, leaf in leaves.items():
        if leaf.is_average:
            result[path] = averages[leaf.parameter]
        elif leaf.parameter in used:
            result[path] = used[leaf.parameter].arrays[leaf.name]
        elif not leaf.parameter:
            group = groups.get(leaf.group, leaf.group)
            result[path] = old.get(f"{group}.{leaf.name}", new[path])
    return result


def average_of(optimizer: Arrays) -> Arrays:
    """The moving average of the trained weights by their paths; empty if there is none."""
    return {
        path.removeprefix(AVERAGE): array
        for path, array in optimizer.items()
        if path.startswith(AVERAGE)
    }


def frozen_as_evaluated(weights: Arrays, averages: Arrays, optimizer: Arrays) -> Arrays:
    """The new weights, where those without an average from now on become the average.

    Args:
        weights, averages: made of the trained weights and of their average.
        optimizer: the new state; without any average nothing changes.
    """
    averaged = average_of(optimizer)
    if not averaged:
        return weights
    return {path: array if path in averaged else averages[path] for path, array in weights.items()}


def parse_leaf(path: str, parameters: Container[str]) -> Leaf:
    """The parts of a path such as `states.0.<parameter>.m`, `average.<parameter>` or `step`."""
    keys = path.split(".")
    for start in range(len(keys)):
        for end in (len(keys), len(keys) - 1):
            parameter = ".".join(keys[start:end])
            if parameter in parameters:
                return Leaf(".".join(keys[:start]), parameter, ".".join(keys[end:]))
    return Leaf(".".join(keys[:-1]), "", keys[-1])


def is_second_moment(name: str, names: set[str]) -> bool:
    """True for means of squared gradients: `v` beside `m` (Adam), and those of Adafactor."""
    return "_sq" in name or (name == "v" and "m" in names)


def axes_of(name: str, count: int) -> list[int]:
    """The axes of a statistic of an array with `count` axes: Adafactor's means lack one."""
    missing = {"exp_avg_sq_row": count - 1, "exp_avg_sq_col": count - 2}.get(name)
    return [axis for axis in range(count) if axis != missing]
