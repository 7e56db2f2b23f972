"""The optimizer state of a changed model: by path, by the map of the weights, or by shape."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import mlx.core as mx

from mlxlab.checkpoint.arrays import AVERAGE, Arrays, owner_of
from mlxlab.extensions.growth.arrays import Source, Sources, gather_moment


@dataclass(frozen=True)
class Moments:
    """The statistics of one parameter, whose paths in the state are `<group>.<parameter>.<name>`.

    Args:
        path: of the parameter; it and the group are those before a change.
        group: with the dot after it, such as `states.0.`.
        arrays: by name, such as `m`.
    """

    path: str
    group: str
    arrays: Arrays = field(default_factory=dict)
    is_moved: bool = False

    def after(self, source: Source, path: str) -> "Moments":
        """Makes the moments of the parameter at `path` from these."""
        arrays = {}
        for name, array in self.arrays.items():
            # Means of squared gradients: `v` beside `m` (Adam), and those of Adafactor.
            is_second = "_sq" in name or (name == "v" and "m" in self.arrays)
            axes = [*range(array.ndim)]
            if name == "exp_avg_sq_col":  # It lacks the last axis but one of the weight.
                axes[-1] += 1
            arrays[name] = gather_moment(array, axes, source, 2 if is_second else 1)
        return replace(self, arrays=arrays, is_moved=self.is_moved or source != Source(path))

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
    weights: Collection[str],
    changes: Sequence[Sources],
    averages: Arrays,
    *,
    by_shape: bool,
) -> tuple[Arrays, OptimizerReport]:
    """The arrays of the state `new` before its first step, with what `old` knows of them.

    Args:
        weights: paths of the old weights.
        changes: those that led from the old weights to the new ones: what each weight is made of.
        averages: the moving average of the new weights, or these where there is none.
        by_shape: parameters without a source take the unused state of ones of the same shape, in
            the order of their paths.
    """
    saved = read_moments(old, weights)
    moments = saved
    for sources in changes:
        moments = {
            path: moments[source.path].after(source, path)
            for path, source in sources.items()
            if source.path in moments
        }
    report = OptimizerReport()
    used: dict[str, Moments] = {}
    empty = read_moments(new, averages)
    for path, expected in empty.items():
        if path in moments and moments[path].layout == expected.layout:
            used[path] = moments[path]
            (report.by_map if used[path].is_moved else report.by_path).append(path)

    left = saved.keys() - {each.path for each in used.values()}
    for path in sorted(empty.keys() - used.keys()):
        matches = sorted(name for name in left if saved[name].layout == empty[path].layout)
        if by_shape and matches:
            used[path] = saved[matches[0]]
            left.remove(matches[0])
            report.by_shape.append(f"{path} from {matches[0]}")
        else:
            report.fresh.append(path)
    report.dropped = sorted(left)
    groups = {each.group: "" for each in empty.values()}
    for path, each in empty.items():
        if path in used:
            groups[each.group] = groups[each.group] or used[path].group
    return _fill(old, new, groups, used, averages), report


def _fill(
    old: Arrays, new: Arrays, groups: dict[str, str], used: dict[str, Moments], averages: Arrays
) -> Arrays:
    """The new state. The counters of a group come from that of its first carried parameter, by `groups`."""
    result = dict(new)
    for path in new:
        owner = owner_of(path, averages)
        name = path.rpartition(".")[2]
        if path.startswith(AVERAGE):
            result[path] = averages[path.removeprefix(AVERAGE)]
        elif owner in used:
            result[path] = used[owner].arrays[name]
        elif owner is None:
            group = path.removesuffix(name)
            source = groups.get(group, group)
            if source:
                result[path] = old.get(source + name, new[path])
    return result


def read_moments(state: Arrays, weights: Collection[str]) -> dict[str, Moments]:
    """The statistics of every parameter in an optimizer state."""
    result: dict[str, Moments] = {}
    for path, array in state.items():
        owner = owner_of(path, weights)
        if owner is not None and not path.startswith(AVERAGE):
            group = path.partition(owner)[0]
            moments = result.setdefault(owner, Moments(owner, group))
            moments.arrays[path.rpartition(".")[2]] = array
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
