"""The optimizer state of a changed model: by path, by the map of the weights, or by shape."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mlxlab.checkpoint.arrays import AVERAGE, Arrays
from mlxlab.extensions.growth.arrays import Source, Sources, gather_moment

Shapes = Mapping[str, tuple[int, ...]]  # by path


class TransferCounts(NamedTuple):
    """Parameters by what became of their optimizer state: carried over, new, or dropped with the parameter."""

    carried: int
    fresh: int
    dropped: int

    def __str__(self) -> str:
        return f"{self.carried} carried, {self.fresh} fresh, {self.dropped} dropped"


class Leaf(NamedTuple):
    """An array of the optimizer state, as that of a parameter; "" for counters and other arrays of no parameter."""

    parameter: str
    name: str


class WeightChange(NamedTuple):
    """A change of the weights: their shapes before it, and what each array after it is made of."""

    shapes: Shapes
    sources: Sources


@dataclass
class Moments:
    """The statistics of one parameter by their names; `path` and `group` are where they were before."""

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
        return Moments(
            self.path,
            self.group,
            arrays,
            self.is_moved or bool(source.gathers) or path != source.path,
        )


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

    def counts(self) -> TransferCounts:
        carried = len(self.by_path) + len(self.by_map) + len(self.by_shape)
        return TransferCounts(carried, len(self.fresh), len(self.dropped))

    def line(self) -> str:
        return "optimizer state: " + ", ".join(
            f"{len(paths)} {name}" for name, paths in self.as_json().items()
        )


def transfer_optimizer(
    old: Arrays,
    new: Arrays,
    changes: Sequence[WeightChange],
    weights: Shapes,
    averages: Arrays,
    *,
    by_shape: bool,
) -> tuple[Arrays, OptimizerReport]:
    """The arrays of the state `new`, which is that before the first step, with what `old` knows of them.

    Args:
        changes: those that led from the old weights to the new ones, at least one.
        weights: shapes of the new weights by path.
        averages: moving averages of the new weights, where there are any.
        by_shape: parameters without a source take the unused state of ones of the same shape, in order of the path.
    """
    saved = read_moments(old, changes[0].shapes)
    moments = saved
    for change in changes:
        moments = {
            path: moments[source.path].after(source, change.shapes[source.path], path)
            for path, source in change.sources.items()
            if source.path in moments
        }
    empty = read_moments(new, weights)
    used = {
        path: moments[path]
        for path, each in empty.items()
        if path in moments and _same(moments[path], each)
    }
    report = OptimizerReport()
    for path in used:
        (report.by_map if used[path].is_moved else report.by_path).append(path)
    left = {
        path: each
        for path, each in saved.items()
        if path not in {each.path for each in used.values()}
    }
    for path in sorted(empty.keys() - used.keys()):
        match = next(
            (name for name in sorted(left) if by_shape and _same(left[name], empty[path])), None
        )
        if match is None:
            report.fresh.append(path)
        else:
            used[path] = left.pop(match)
            report.by_shape.append(f"{path} from {match}")
    report.dropped = sorted(left)
    return _fill(old, new, weights, used, averages), report


def read_moments(state: Arrays, parameters: Shapes) -> dict[str, Moments]:
    """The statistics of every parameter in an optimizer state."""
    result: dict[str, Moments] = {}
    for path, array in state.items():
        parameter, name = parse_leaf(path, parameters)
        if parameter and not name.startswith(AVERAGE):
            group = path.removesuffix(f"{parameter}.{name}")
            result.setdefault(parameter, Moments(parameter, group)).arrays[name] = array
    return result


def _same(first: Moments, second: Moments) -> bool:
    """Whether two parameters have the same statistics of the same shapes and types."""
    kinds = [
        {name: (array.shape, array.dtype) for name, array in each.arrays.items()}
        for each in (first, second)
    ]
    return kinds[0] == kinds[1]


def _fill(
    old: Arrays, new: Arrays, weights: Shapes, used: Mapping[str, Moments], averages: Arrays
) -> Arrays:
    """The new state. The counters of a group of parameters come from that of the first one which is carried over."""
    result: Arrays = {}
    leaves = {path: parse_leaf(path, weights) for path in new}
    groups: dict[str, str | None] = {}  # of the new state -> of the old one
    for path, (parameter, name) in leaves.items():
        if parameter and not name.startswith(AVERAGE):
            group = path.removesuffix(f"{parameter}.{name}")
            groups[group] = groups.get(group) or (
                used[parameter].group if parameter in used else None
            )
    for path, (parameter, name) in leaves.items():
        group, _, counter = path.rpartition(".")
        if name.startswith(AVERAGE):
            result[path] = averages[parameter]
        elif parameter:
            result[path] = used[parameter].arrays[name] if parameter in used else new[path]
        else:
            source = groups.get(f"{group}.", f"{group}.")
            result[path] = new[path] if source is None else old.get(source + counter, new[path])
    return result


def average_of(optimizer: Arrays) -> Arrays:
    """The moving average of the trained weights by their paths; empty if there is none."""
    return {
        path.removeprefix(AVERAGE): array
        for path, array in optimizer.items()
        if path.startswith(AVERAGE)
    }


def frozen_as_evaluated(weights: Arrays, averages: Arrays, optimizer: Arrays) -> Arrays:
    """The new weights, of which those without an average from now on become the average, as it was evaluated.

    Args:
        weights, averages: made of the trained weights and of their average.
        optimizer: the new state; without any average nothing changes.
    """
    averaged = average_of(optimizer)
    if not averaged:
        return weights
    return {path: array if path in averaged else averages[path] for path, array in weights.items()}


def parse_leaf(path: str, parameters: Container[str]) -> Leaf:
    """The parameter of an array of the state: `states.0.<path>.m` is of `<path>`, and so is `average.<path>`."""
    keys = path.split(".")
    for start in range(len(keys)):
        for end in (len(keys), len(keys) - 1):
            parameter = ".".join(keys[start:end])
            if parameter in parameters:
                is_average = keys[:start] == ["average"]
                return Leaf(parameter, AVERAGE if is_average else ".".join(keys[end:]))
    return Leaf("", path)


def is_second_moment(name: str, names: set[str]) -> bool:
    """True for means of squared gradients: `v` next to `m` (Adam), not alone (momentum), and those of Adafactor."""
    return "_sq" in name or (name == "v" and "m" in names)


def axes_of(name: str, count: int) -> list[int]:
    """The axes of a statistic of an array with `count` axes: Adafactor's means of rows and columns lack one."""
    missing = {"exp_avg_sq_row": count - 1, "exp_avg_sq_col": count - 2}.get(name)
    return [axis for axis in range(count) if axis != missing]
